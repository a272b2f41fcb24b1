use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::handle::{MemoryHandleType, SemaphoreHandleType};
use crate::identity::{Identity, Uuid};
use crate::payload::{MemoryInfo, SemaphoreInfo, SemaphoreKind};
use crate::resource::{BufferDesc, BufferUsage, Extent, ImageDesc, ImageKind, ImageUsage, Tiling};

/// A message of `kind` whose body has `fields` at the offsets of the module's tables, else 0.
fn by_hand(kind: u16, body_len: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = b"GIPC\x01\0".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend((body_len as u32).to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
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
        mutable_format: true,
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
        (112, "GPÜ".as_bytes()),
    ]);
    let (memory, desc) = (memory_info(), image_desc());
    (Message::Image { memory, offset: 0x070809, desc }, by_hand(3, 116, &fields))
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

#[test]
fn every_field_lies_where_the_page_says() {
    for (message, bytes) in
        [memory_message(), buffer_message(), image_message(), semaphore_message()]
    {
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

#[test]
fn whatever_the_page_does_not_know_is_refused_by_its_field() {
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
        (116, 0x40, "body.usage"),
        (120, 9, "body.flags"),
        (124, 1, "body.reserved"),
        (128, b'\x1b', "body.name"),
        (131, b'X', "body.name"),
    ];
    let buffer = [(89, 0x80, "body.usage"), (92, 1, "body.reserved")];
    let semaphore = [
        (16, 2, "body.handle_type"),
        (20, 2, "body.semaphore_kind"),
        (24, 2, "body.has_driver_uuid"),
        (26, 1, "body.reserved"),
        (48, 1, "body.driver_uuid"),
    ];
    let refused = |bytes: &[u8], cases: &[(usize, u8, &str)]| {
        for &(at, value, field) in cases {
            let mut wrong = bytes.to_vec();
            wrong[at] = value;
            let found = Message::decode(&wrong).map_or_else(field_of, |_| String::new());
            assert_eq!(found, field, "byte {at} as {value:#x}");
        }
    };
    let image_bytes = image_message().1;
    refused(&image_bytes, &header);
    refused(&image_bytes, &block);
    refused(&image_bytes, &image);
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
fn a_body_that_its_header_cuts_short_names_the_field_that_is_missing() {
    for (_, bytes) in [memory_message(), buffer_message(), image_message(), semaphore_message()] {
        for body_len in 0..bytes.len() - HEADER_LEN {
            let mut short = bytes[..HEADER_LEN + body_len].to_vec();
            short[8..12].copy_from_slice(&(body_len as u32).to_le_bytes());
            let error = Message::decode(&short).unwrap_err();
            assert!(error.to_string().contains("is cut off"), "{error}");
        }
    }
}

#[test]
fn a_version_that_is_not_known_is_a_mismatch_with_both() {
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

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

fn identity(name: &'static str) -> impl Strategy<Value = Identity> {
    (uuid(), proptest::option::of(uuid()), name).prop_map(|(device, driver, name)| Identity {
        device,
        driver,
        name,
    })
}

fn memory(name: &'static str) -> impl Strategy<Value = MemoryInfo> {
    let handle_type = select(vec![MemoryHandleType::OpaqueFd, MemoryHandleType::DmaBuf]);
    (handle_type, any::<(u64, Option<u32>, bool)>(), identity(name)).prop_map(
        |(handle_type, (allocation_size, memory_type_index, dedicated), identity)| MemoryInfo {
            handle_type,
            allocation_size,
            memory_type_index,
            dedicated,
            identity,
        },
    )
}

fn image() -> impl Strategy<Value = ImageDesc> {
    let kinds = vec![ImageKind::D1, ImageKind::D2, ImageKind::D3, ImageKind::Cube];
    let names = (select(kinds), select(Format::ALL), select(vec![Tiling::Optimal, Tiling::Linear]));
    (names, any::<([u32; 3], [u32; 4], bool)>()).prop_map(
        |(names, (extent, counts, mutable_format))| {
            let [width, height, depth] = extent;
            let [layers, levels, samples, usage] = counts;
            ImageDesc {
                kind: names.0,
                format: names.1,
                extent: Extent { width, height, depth },
                layers,
                levels,
                samples,
                tiling: names.2,
                usage: ImageUsage::from_bits_truncate(usage),
                mutable_format,
            }
        },
    )
}

/// Any message; `name` is the pattern of its device's name.
fn message(name: &'static str) -> impl Strategy<Value = Message> {
    let handle_type = select(vec![SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd]);
    let kind = select(vec![SemaphoreKind::Binary, SemaphoreKind::Timeline]);
    prop_oneof![
        memory(name).prop_map(Message::Memory),
        (memory(name), any::<(u64, u64, u32)>()).prop_map(|(memory, (offset, size, bits))| {
            let usage = BufferUsage::from_bits_truncate(bits);
            Message::Buffer { memory, offset, desc: BufferDesc { size, usage } }
        }),
        (memory(name), any::<u64>(), image()).prop_map(|(memory, offset, desc)| Message::Image {
            memory,
            offset,
            desc
        }),
        (handle_type, kind, identity(name)).prop_map(|(handle_type, kind, identity)| {
            Message::Semaphore(SemaphoreInfo { handle_type, kind, identity })
        }),
    ]
}

fn name_of(message: &mut Message) -> &mut String {
    match message {
        Message::Memory(memory) => &mut memory.identity.name,
        Message::Buffer { memory, .. } | Message::Image { memory, .. } => &mut memory.identity.name,
        Message::Semaphore(semaphore) => &mut semaphore.identity.name,
    }
}

/// Bytes are one message's only encoding, or a typed error.
fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    match Message::decode(bytes) {
        Ok(message) => prop_assert_eq!(message.encode(), bytes),
        Err(Error::Invalid(_) | Error::Mismatch(_)) => {}
        Err(other) => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_message_survives_the_wire(message in message("\\PC{0,64}")) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= HEADER_LEN + 112 + MAX_NAME);
        prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn any_name_can_be_sent_and_only_the_name_may_change(message in message("(?s).{0,300}")) {
        let (mut sent, mut back) = (message.clone(), Message::decode(&message.encode()).unwrap());
        let (long, name) = (name_of(&mut sent), name_of(&mut back).clone());
        prop_assert!(name.len() <= MAX_NAME && long.chars().count() >= name.chars().count());
        for (before, after) in long.chars().zip(name.chars()) {
            prop_assert!(after == before || (before.is_control() && after == char::REPLACEMENT_CHARACTER));
        }
        *long = name;
        prop_assert_eq!(sent, back);
    }

    #[test]
    fn a_message_with_any_byte_changed_is_another_message_or_a_typed_error(
        message in message("\\PC{0,16}"),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_any(&bytes)?;
    }

    #[test]
    fn any_header_is_a_header_within_the_limit_or_a_typed_error(
        tail in any::<[u8; 10]>(), junk in any::<[u8; 16]>(), kind in 0u8..6, one in 0u8..2,
    ) {
        let mut bytes = *b"GIPC\x01\0\0\0\0\0\0\0\0\0\0\0";
        bytes[6..].copy_from_slice(&tail);
        bytes[6..8].copy_from_slice(&[kind, 0]);
        let mut near = bytes;
        near[10..].copy_from_slice(&[0, 0, one, 0, 0, 0]);
        for bytes in [bytes, near, junk] {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert!(header.message_len() <= MAX_MESSAGE);
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn any_body_is_a_message_or_a_typed_error(
        kind in 0u16..6, body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        check_any(&body)?;
        check_any(&by_hand(kind, body.len(), &[(0, &body)]))?;
    }
}
