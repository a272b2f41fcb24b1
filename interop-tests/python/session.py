#!/usr/bin/env python3
"""A client of sessions in Python, written from the page of the wire format (gpu_interop::ipc::wire) alone. It
needs only the standard library, and no GPU API: it maps the memory of Mesa's software drivers.

    session.py consume SOCKET FRAMES
        Joins the producer at SOCKET, checks that many frames of hash, seeded by the tag, and leaves.
    session.py produce SOCKET FRAMES DEVICE_UUID DRIVER_UUID MEMORY_TYPE HEADER
        Serves one consumer of `share`'s frames with that many. HEADER is the first 64 bytes of memory that the
        driver exported: it imports only what begins as its own memory does.

Both print their result as JSON, and exit with 0 if it is right.
"""

import fcntl
import json
import mmap
import os
import socket
import struct
import sys
import time

MAGIC = b"GIPC"
VERSION = 1
BUFFER, JOIN, RING, READY, FRAME, RELEASE, LEAVE = 2, 16, 17, 18, 19, 20, 21
OPAQUE_FD = 1
DONE, EVICTED, PROTOCOL_ERROR = 0, 1, 4
REASONS = ["done", "evicted", "refused", "full", "protocol error"]

# Of fcntl.h; the module fcntl has them from Python 3.9 on, but not in every build.
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SHRINK, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE = 0x2, 0x8, 0x10

TIMEOUT = 60.0
U32 = 0xFFFFFFFF


class Connection:
    """One side's end of the socket."""

    def __init__(self, connected):
        self.socket = connected
        self.socket.settimeout(TIMEOUT)

    def send(self, kind, body=b"", descriptor=None):
        count = 0 if descriptor is None else 1
        message = struct.pack("<4sHHIHH", MAGIC, VERSION, kind, len(body), count, 0) + body
        rights = [] if descriptor is None else [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
        ]
        sent = self.socket.sendmsg([message], rights)
        # Not if nothing is left: the peer may have closed its end already.
        if sent < len(message):
            self.socket.sendall(message[sent:])

    def read(self, length):
        """Exactly that many bytes, and the descriptors that came with them."""
        data, descriptors = b"", []
        while len(data) < length:
            part, control, flags, _ = self.socket.recvmsg(
                length - len(data), socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
            )
            if not part:
                raise EOFError("the socket was closed")
            if flags & socket.MSG_CTRUNC:
                raise ValueError("more descriptors than a message has")
            for level, kind, found in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors += struct.unpack("%di" % (len(found) // 4), found)
            data += part
        return data, descriptors

    def receive(self):
        """The next message: its kind, body and descriptor."""
        header, descriptors = self.read(16)
        magic, version, kind, length, count, reserved = struct.unpack("<4sHHIHH", header)
        if (magic, version, reserved) != (MAGIC, VERSION, 0) or length > 4080:
            raise ValueError("header %s" % header.hex())
        body, late = self.read(length)
        if late or len(descriptors) != count:
            raise ValueError("%d descriptors, not %d" % (len(descriptors), count))
        return kind, body, descriptors[0] if descriptors else None

    def expect(self, kind):
        found, body, descriptor = self.receive()
        if found == LEAVE:
            raise EOFError(REASONS[struct.unpack("<I", body)[0]])
        if found != kind:
            raise ValueError("kind %d, not %d" % (found, kind))
        return body, descriptor


def noise(word, seed):
    x = word ^ (seed * 0x9E3779B9 & U32)
    x = (x ^ x >> 16) * 0x7FEB352D & U32
    x = (x ^ x >> 15) * 0x846CA68B & U32
    return x ^ x >> 16


class Memory:
    """The memory of a buffer, mapped."""

    def __init__(self, body, descriptor):
        handle, _, _, _, _, _, name, allocation = struct.unpack_from("<IBBBBIIQ", body)
        offset, self.size, _usage, _, = struct.unpack_from("<QQII", body, 56)
        assert handle == OPAQUE_FD and len(body) == 80 + name
        seals = fcntl.fcntl(descriptor, F_GET_SEALS)
        assert seals & F_SEAL_SHRINK and not seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE), seals
        length = os.fstat(descriptor).st_size
        self.map = mmap.mmap(descriptor, length)
        os.close(descriptor)
        # The driver's header: the length of the file, and where the allocation begins.
        header_length, start = struct.unpack_from("<QQ", self.map)
        assert start == 4096 and header_length <= length, (header_length, start, length)
        assert start + allocation <= length and offset + self.size <= allocation
        self.start = start + offset

    def words(self):
        return struct.unpack_from("<%dI" % (self.size // 4), self.map, self.start)


def consume(path, count):
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(TIMEOUT)
    connected.connect(path)
    connection = Connection(connected)
    name = b"python"
    connection.send(JOIN, struct.pack("<I", len(name)) + name)
    ring, _ = connection.expect(RING)
    slots, semaphores, drops_frames = struct.unpack_from("<IIB", ring)
    memory = [Memory(*connection.expect(BUFFER)) for _ in range(slots)]
    assert semaphores == 0
    connection.send(READY)
    verified, last = 0, 0
    for _ in range(count):
        frame, _ = connection.expect(FRAME)
        slot, has_point, _, _, sequence = struct.unpack_from("<IBBHQ", frame)
        _published, tag = struct.unpack_from("<QQ", frame, 40)
        # The first one may have any number.
        assert has_point == 0 and (last == 0 or sequence == last + 1 or drops_frames), sequence
        last = sequence
        seed = tag & U32
        words = memory[slot].words()
        verified += all(found == noise(word, seed) for word, found in enumerate(words))
        connection.send(RELEASE, struct.pack("<IIQ", slot, 0, sequence))
    connection.send(LEAVE, struct.pack("<I", DONE))
    connected.close()
    print(json.dumps({"slots": slots, "frames": count, "verified": verified}))
    return verified == count


# Frames of `share`, as shaders/README.md describes them.


def wave(t):
    t &= 1023
    u = min(t, 1023 - t)
    return (u * u * (1536 - 2 * u)) >> 19


def share_word(word, frame, width_log2):
    x = ((word & ((1 << width_log2) - 1)) << 12) >> width_log2
    y = ((word >> width_log2) << 12) >> width_log2
    dx, dy = x - 2048, y - 1024
    rings = ((dx * dx + dy * dy) & U32) >> 10
    a = wave(((x * 2 + frame * 24) & U32) >> 2)
    b = wave(((y * 3 - frame * 16) & U32) >> 2)
    c = wave(((x + y * 2 + frame * 40) & U32) >> 2)
    d = wave((rings - frame * 8) & U32)
    red, green, blue = (a + c) >> 1, (b + d) >> 1, (c + d + 2 * b) >> 2
    mark = (((word * 2654435761 & U32) >> 24) + frame) & 0xFF
    low = noise(word, frame) & 0x00030303
    return (red & 0xFC) | (green & 0xFC) << 8 | (blue & 0xFC) << 16 | low | mark << 24


def produce(path, count, device, driver, memory_type, header):
    size, slots, width_log2 = 4096, 3, 5
    allocation, start = 8192, 4096
    length = start + allocation
    memory = []
    for _ in range(slots):
        descriptor = os.memfd_create("python memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, length)
        mapped = mmap.mmap(descriptor, length)
        mapped[: len(header)] = header
        struct.pack_into("<QQ", mapped, 0, length, start)
        fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK)
        memory.append((descriptor, mapped))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.settimeout(TIMEOUT)
    # As the socket of every producer: other users can't connect.
    os.umask(0o177)
    listener.bind(path)
    listener.listen(4)
    accepted, _ = listener.accept()
    connection = Connection(accepted)
    connection.expect(JOIN)
    name = b"python"
    text = b"gpu-interop frames: %d bytes, %d frames" % (size, count)
    connection.send(
        RING, struct.pack("<IIB3xII", slots, 0, 0, len(name), len(text)) + name + text
    )
    for descriptor, _ in memory:
        block = struct.pack("<IBBBBIIQ", OPAQUE_FD, 0, 1, 1, 0, memory_type, len(name), allocation)
        # A storage buffer that can be copied from and to.
        connection.send(
            BUFFER, block + device + driver + struct.pack("<QQII", 0, size, 0x23, 0) + name, descriptor
        )
    connection.expect(READY)
    holds = {}
    for frame in range(count):
        while len(holds) == slots:
            slot, _, sequence = struct.unpack("<IIQ", connection.expect(RELEASE)[0])
            assert holds.pop(slot) == sequence, (slot, sequence)
        slot = next(slot for slot in range(slots) if slot not in holds)
        words = [share_word(word, frame, width_log2) for word in range(size // 4)]
        struct.pack_into("<%dI" % len(words), memory[slot][1], start, *words)
        sequence = frame + 1
        body = struct.pack("<IBBHQ", slot, 0, 0, 0, sequence) + bytes(24)
        connection.send(FRAME, body + struct.pack("<QQ", time.monotonic_ns(), frame))
        holds[slot] = sequence
    while holds:
        slot, _, sequence = struct.unpack("<IIQ", connection.expect(RELEASE)[0])
        assert holds.pop(slot) == sequence, (slot, sequence)
    connection.send(LEAVE, struct.pack("<I", DONE))
    accepted.close()
    os.unlink(path)
    print(json.dumps({"frames": count}))
    return True


def main(arguments):
    mode, path, count = arguments[0], arguments[1], int(arguments[2])
    if mode == "consume":
        return consume(path, count)
    device, driver = (bytes.fromhex(text) for text in arguments[3:5])
    header = bytes.fromhex(arguments[6])
    return produce(path, count, device, driver, int(arguments[5]), header)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
