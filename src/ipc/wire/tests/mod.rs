//! Each field's offset and the values that it refuses; in `properties`, any message and any bytes.

mod properties;

use super::*;
use crate::desc::{
    BufferDesc, BufferUsage, Extent, ImageDesc, ImageFlags, ImageKind, ImageLayout, ImageUsage,
    Origin, Tiling, ViewFormats,
};
use crate::error::Error;
use crate::fd::{MemoryHandleType, SemaphoreHandleType};
use crate::format::{Aspects, CudaFormat, Format, GlFormat, RawFormat};
use crate::identity::{Identity, Uuid};
use crate::payload::{LinearLayout, MemoryInfo, SemaphoreInfo, SemaphoreKind};

/// A message of `kind` whose body has `fields` at the documented offsets, and 0 elsewhere.
fn by_hand(kind: u16, body_len: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    by_hand_with(kind, body_len, u8::from(kind < 16), fields)
}

/// The same, with any number of descriptors.
fn by_hand_with(kind: u16, body_len: usize, descriptors: u8, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = b"GIPC\x01\0".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend((body_len as u32).to_le_bytes());
    bytes.extend([descriptors, 0, 0, 0]);
    bytes.resize(16 + body_len, 0);
    for (offset, value) in fields {
        bytes[16 + offset..][..value.len()].copy_from_slice(value);
    }
    bytes
}

fn memory_info() -> MemoryInfo {
    MemoryInfo {
        handle_type: MemoryHandleType::DmaBuf,
        allocation_size: 0x0102_0304_0506_0708,
        memory_type_index: Some(0x1112_1314),
        dedicated: true,
        identity: Identity {
            device: Uuid::from_bytes(*b"device UUID 16 b"),
            driver: Some(Uuid::from_bytes(*b"driver UUID 16 b")),
            name: "GPÜ".into(),
        },
    }
}

const MEMORY_BLOCK: [(usize, &[u8]); 8] = [
    (0, &[0x00, 0x02]),
    (4, &[1]),
    (5, &[1]),
    (6, &[1]),
    (8, &[0x14, 0x13, 0x12, 0x11]),
    (12, &[4]),
    (16, &[8, 7, 6, 5, 4, 3, 2, 1]),
    (24, b"device UUID 16 bdriver UUID 16 b"),
];

fn image_desc() -> ImageDesc {
    ImageDesc {
        kind: ImageKind::Cube,
        format: Format::Bgra8Unorm,
        extent: Extent { width: 0x0a0b, height: 0x0c0d, depth: 3 },
        layers: 4,
        levels: 5,
        samples: 6,
        tiling: Tiling::Linear,
        usage: ImageUsage::COLOR_ATTACHMENT | ImageUsage::SAMPLED,
        flags: ImageFlags::MUTABLE_FORMAT,
        view_formats: ViewFormats::EMPTY,
        origin: Origin::UpperLeft,
    }
}

fn memory_message() -> (Message, Vec<u8>) {
    let mut fields = MEMORY_BLOCK.to_vec();
    fields.push((56, "GPÜ".as_bytes()));
    (Message::Memory(memory_info()), by_hand(1, 60, &fields))
}

fn buffer_message() -> (Message, Vec<u8>) {
    let mut fields = MEMORY_BLOCK.to_vec();
    fields.extend([(56, &[1, 2][..]), (64, &[3, 4]), (72, &[0x23, 0, 2]), (80, "GPÜ".as_bytes())]);
    let usage = BufferDesc::storage(1).usage | BufferUsage::DEVICE_ADDRESS;
    let desc = BufferDesc { size: 0x403, usage };
    let message = Message::Buffer { memory: memory_info(), offset: 0x201, desc };
    (message, by_hand(2, 84, &fields))
}

fn image_message() -> (Message, Vec<u8>) {
    let mut fields = MEMORY_BLOCK.to_vec();
    fields.extend([
        (56, &[9, 8, 7][..]),
        (64, &[44]),
        (68, &[3]),
        (72, &[0x0b, 0x0a]),
        (76, &[0x0d, 0x0c]),
        (80, &[3]),
        (84, &[4]),
        (88, &[5]),
        (92, &[6]),
        (96, &[1]),
        (100, &[0x14]),
        (104, &[8]),
        (144, "GPÜ".as_bytes()),
    ]);
    let (memory, desc) = (memory_info(), image_desc());
    let message = Message::Image { memory, offset: 0x070809, desc, linear: None };
    (message, by_hand(3, 148, &fields))
}

fn linear_image_message() -> (Message, Vec<u8>) {
    let (mut message, mut bytes) = image_message();
    let layout = LinearLayout {
        offset: 0x2122_2324_2526_2728,
        row_pitch: 0x3132_3334_3536_3738,
        depth_pitch: 0x4142_4344_4546_4748,
        array_pitch: 0x5152_5354_5556_5758,
    };
    if let Message::Image { linear, .. } = &mut message {
        *linear = Some(layout);
    }
    bytes[16 + 108] = 1;
    for (at, high) in [(112, 0x20), (120, 0x30), (128, 0x40), (136, 0x50)] {
        bytes[16 + at..][..8].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1].map(|low| high | low));
    }
    (message, bytes)
}

/// An application's own image: a raw format, raw usages and flags, two view formats, and an origin
/// at the lower left.
fn raw_image_message() -> (Message, Vec<u8>) {
    let (mut message, mut bytes) = image_message();
    let gl = GlFormat { internal: 0x8229, format: 0x1903, ty: 0x1401 };
    let raw = RawFormat::new(1_000_156_003, 6)
        .with_block_extent(2, 3)
        .with_aspects(Aspects::COLOR)
        .with_gl(gl);
    if let Message::Image { desc, .. } = &mut message {
        desc.format = raw.with_cuda(CudaFormat { array_format: 0xb0, channels: 3 }).into();
        desc.usage |= ImageUsage::INPUT_ATTACHMENT | ImageUsage::from_bits_retain(0x40_0000);
        desc.flags |= ImageFlags::EXTENDED_USAGE | ImageFlags::from_bits_retain(0x1000);
        desc.view_formats = ViewFormats::from_raw(&[9, 16]).unwrap();
        desc.origin = Origin::LowerLeft;
    }
    bytes[8] = 148 + 2 * 4 + 40;
    bytes.resize(16 + 148 + 2 * 4 + 40, 0);
    for (at, value) in [
        (64, &[0x63, 0x2b, 0x9d, 0x3b][..]),
        (100, &[0x94, 0, 0x40]),
        (104, &[0x08, 0x11]),
        (109, &[1, 2, 1]),
        (148, &[9, 0, 0, 0, 16]),
        (156, &[6, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1]),
        (172, &[1, 1]),
        (176, &[0x29, 0x82, 0, 0, 0x03, 0x19, 0, 0, 0x01, 0x14]),
        (188, &[0xb0, 0, 0, 0, 3]),
    ] {
        bytes[16 + at..][..value.len()].copy_from_slice(value);
    }
    (message, bytes)
}

/// One message of each kind of payload; an image with and without a layout, and one with every
/// field.
fn messages() -> [(Message, Vec<u8>); 6] {
    let (image, linear_image, raw_image) =
        (image_message(), linear_image_message(), raw_image_message());
    [memory_message(), buffer_message(), image, linear_image, raw_image, semaphore_message()]
}

fn semaphore_message() -> (Message, Vec<u8>) {
    let fields: [(usize, &[u8]); 5] =
        [(0, &[0x10]), (4, &[0]), (12, &[4]), (16, b"device UUID 16 b"), (48, "GPÜ".as_bytes())];
    let mut identity = memory_info().identity;
    identity.driver = None;
    let handle_type = SemaphoreHandleType::SyncFd;
    let info = SemaphoreInfo { handle_type, kind: SemaphoreKind::Binary, identity };
    (Message::Semaphore(info), by_hand(4, 52, &fields))
}

/// One message of each kind of a session, and a frame both with and without its optional fields.
fn session_messages() -> Vec<(Message, Vec<u8>)> {
    let ring = RingInfo {
        slots: 3,
        semaphores: 2,
        drops_frames: true,
        name: "rüng".into(),
        format: "rgba8".into(),
    };
    let bare = FrameToken {
        slot: 63,
        sequence: 0x0102_0304_0506_0708,
        point: None,
        layouts: None,
        published: 0x1112_1314_1516_1718,
        tag: 0x2122_2324_2526_2728,
    };
    let full = FrameToken {
        point: Some(TimelinePoint { semaphore: 7, value: 0x3132_3334_3536_3738 }),
        layouts: Some(Layouts {
            old: ImageLayout::from_raw(-2),
            new: ImageLayout::from_raw(0x0041_4243),
        }),
        ..bare
    };
    let low = |high: u8| [8, 7, 6, 5, 4, 3, 2, 1].map(|low: u8| high | low);
    let frame: [(usize, &[u8]); 4] = [(0, &[63]), (8, &low(0)), (40, &low(0x10)), (48, &low(0x20))];
    let mut with_both = frame.to_vec();
    let value = low(0x30);
    with_both.extend([
        (4, &[1, 1][..]),
        (16, &[7]),
        (24, &value),
        (32, &[0xfe, 0xff, 0xff, 0xff]),
        (36, &[0x43, 0x42, 0x41]),
    ]);
    let release = ReleaseToken { slot: 5, sequence: 0x0908 };
    vec![
        (Message::Join { name: "Ö".into() }, by_hand(16, 6, &[(0, &[2]), (4, "Ö".as_bytes())])),
        (
            Message::Ring(ring),
            by_hand(
                17,
                30,
                &[
                    (0, &[3]),
                    (4, &[2]),
                    (8, &[1]),
                    (12, &[5]),
                    (16, &[5]),
                    (20, "rüng".as_bytes()),
                    (25, b"rgba8"),
                ],
            ),
        ),
        (Message::Ready, by_hand(18, 0, &[])),
        (Message::Frame(bare), by_hand(19, 56, &frame)),
        (Message::Frame(full), by_hand(19, 56, &with_both)),
        (Message::Release(release), by_hand(20, 16, &[(0, &[5]), (8, &[8, 9])])),
        (Message::Leave(LeaveReason::Evicted), by_hand(21, 4, &[(0, &[1])])),
    ]
}

fn all_messages() -> impl Iterator<Item = (Message, Vec<u8>)> {
    messages().into_iter().chain(session_messages())
}

#[test]
fn every_field_is_at_its_documented_offset() {
    for (message, bytes) in all_messages() {
        assert_eq!(message.encode(), bytes, "{message:?}");
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }
}

fn field_of(error: Error) -> String {
    match error {
        Error::Invalid(invalid) => invalid.parameter.into_owned(),
        Error::Mismatch(mismatch) => mismatch.field.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// An offset, an invalid value of the byte, and the name of its field.
type Wrong = (usize, u8, &'static str);

fn refused(bytes: &[u8], cases: &[Wrong]) {
    for &(at, value, field) in cases {
        let mut wrong = bytes.to_vec();
        wrong[at] = value;
        let found = Message::decode(&wrong).map_or_else(field_of, |_| String::new());
        assert_eq!(found, field, "byte {at} of {bytes:02x?} as {value:#x}");
    }
}

#[test]
fn each_invalid_field_is_refused_by_its_name() {
    let header = [
        (0, 0x48, "header.magic"),
        (4, 2, "header.version"),
        (5, 1, "header.version"),
        (6, 0, "header.kind"),
        (6, 5, "header.kind"),
        (7, 0x80, "header.kind"),
        (9, 0x10, "header.body_length"),
        (12, 0, "header.descriptors"),
        (12, 2, "header.descriptors"),
        (14, 1, "header.reserved"),
    ];
    let block = [
        (16, 1, "body.handle_type"),
        (20, 2, "body.dedicated"),
        (21, 0, "body.memory_type_index"),
        (21, 0xff, "body.has_memory_type"),
        (22, 0, "body.driver_uuid"),
        (22, 9, "body.has_driver_uuid"),
        (23, 1, "body.reserved"),
        (29, 2, "body.name_length"),
        (28, 2, "body"),
        (28, 5, "body.name"),
    ];
    let image = [
        (80, 45, "body.format"),
        (83, 0x80, "body.format"),
        (84, 4, "body.image_kind"),
        (112, 2, "body.tiling"),
        (124, 2, "body.has_linear_layout"),
        (125, 2, "body.origin"),
        (126, 1, "body.view_format"),
        (126, 9, "body.view_formats"),
        (127, 1, "body.block_bytes"),
        (127, 2, "body.has_raw_format"),
        (160, b'\x1b', "body.name"),
        (163, b'X', "body.name"),
    ];
    let no_layout = [
        (128, 1, "body.linear_offset"),
        (136, 1, "body.row_pitch"),
        (151, 0x80, "body.depth_pitch"),
        (152, 1, "body.array_pitch"),
    ];
    let raw_image = [
        (126, 0, "body.has_gl_format"),
        (127, 0, "body.format"),
        (164, 0, "desc.view_formats"),
        (188, 2, "body.has_gl_format"),
        (188, 0, "body.gl_internal_format"),
        (189, 2, "body.has_cuda_format"),
        (189, 0, "body.cuda_array_format"),
        (190, 1, "body.reserved"),
    ];
    let buffer = [(92, 1, "body.reserved")];
    let semaphore = [
        (16, 2, "body.handle_type"),
        (20, 2, "body.semaphore_kind"),
        (24, 2, "body.has_driver_uuid"),
        (26, 1, "body.reserved"),
        (48, 1, "body.driver_uuid"),
    ];
    let image_bytes = image_message().1;
    refused(&image_bytes, &header);
    refused(&image_bytes, &block);
    refused(&image_bytes, &image);
    refused(&image_bytes, &no_layout);
    refused(&linear_image_message().1, &image);
    refused(&linear_image_message().1, &[(124, 0, "body.linear_offset")]);
    refused(&raw_image_message().1, &raw_image);
    refused(&buffer_message().1, &buffer);
    refused(&semaphore_message().1, &semaphore);
    for len in 0..image_bytes.len() {
        let field = field_of(Message::decode(&image_bytes[..len]).unwrap_err());
        assert_eq!(field, if len < 16 { "header" } else { "header.body_length" });
    }
    let longer = [&image_bytes[..], &[0]].concat();
    assert_eq!(field_of(Message::decode(&longer).unwrap_err()), "header.body_length");
}

#[test]
fn a_body_that_is_cut_short_names_a_field_that_is_missing() {
    for (_, bytes) in all_messages() {
        for body_len in 0..bytes.len() - HEADER_LEN {
            let mut short = bytes[..HEADER_LEN + body_len].to_vec();
            short[8..12].copy_from_slice(&(body_len as u32).to_le_bytes());
            let error = Message::decode(&short).unwrap_err();
            assert!(error.to_string().contains("is cut off"), "{error}");
        }
    }
}

#[test]
fn an_unknown_version_is_a_mismatch_that_names_both() {
    let mut bytes = memory_message().1;
    bytes[4] = 7;
    let text = Message::decode(&bytes).unwrap_err().to_string();
    assert!(text.contains("expected 1, found 7"), "{text}");
}

#[test]
fn a_message_is_no_longer_than_the_limit() {
    let longest = Header { kind: Kind::Buffer, body_len: 4080 };
    assert_eq!(longest.message_len(), MAX_MESSAGE);
    assert_eq!(Header::decode(&longest.encode()).unwrap(), longest);
    let longer = Header { body_len: 4081, ..longest };
    assert_eq!(field_of(Header::decode(&longer.encode()).unwrap_err()), "header.body_length");
}
