//! Properties of all messages, and the invalid fields of those of a session.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::error::Result;

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
    let format = prop_oneof![select(Format::ALL), raw_format()];
    let names = (select(kinds), format, select(vec![Tiling::Optimal, Tiling::Linear]));
    let views = proptest::collection::vec(1i32..185, 0..=ViewFormats::MAX);
    (names, any::<([u32; 3], [u32; 5], bool)>(), views).prop_map(
        |(names, (extent, counts, is_lower), views)| {
            let [width, height, depth] = extent;
            let [layers, levels, samples, usage, flags] = counts;
            ImageDesc {
                kind: names.0,
                format: names.1,
                extent: Extent { width, height, depth },
                layers,
                levels,
                samples,
                tiling: names.2,
                usage: ImageUsage::from_bits_retain(usage),
                flags: ImageFlags::from_bits_retain(flags),
                view_formats: ViewFormats::from_raw(&views).unwrap(),
                origin: if is_lower { Origin::LowerLeft } else { Origin::UpperLeft },
            }
        },
    )
}

fn raw_format() -> impl Strategy<Value = Format> {
    let cuda = proptest::option::of(any::<[u32; 2]>());
    (any::<(i32, [u32; 4], Option<[u32; 3]>)>(), cuda).prop_map(
        |((number, [bytes, width, height, aspects], gl), cuda)| {
            let mut raw = RawFormat::new(number, bytes)
                .with_block_extent(width, height)
                .with_aspects(Aspects::from_bits_retain(aspects));
            raw.gl = gl.map(|[internal, format, ty]| GlFormat { internal, format, ty });
            raw.cuda = cuda.map(|[array_format, channels]| CudaFormat { array_format, channels });
            raw.into()
        },
    )
}

fn linear() -> impl Strategy<Value = LinearLayout> {
    any::<[u64; 4]>().prop_map(|[offset, row_pitch, depth_pitch, array_pitch]| LinearLayout {
        offset,
        row_pitch,
        depth_pitch,
        array_pitch,
    })
}

/// Any payload message; `name` is the pattern of its device name.
fn message(name: &'static str) -> impl Strategy<Value = Message> {
    let handle_type = select(vec![SemaphoreHandleType::OpaqueFd, SemaphoreHandleType::SyncFd]);
    let kind = select(vec![SemaphoreKind::Binary, SemaphoreKind::Timeline]);
    prop_oneof![
        memory(name).prop_map(Message::Memory),
        (memory(name), any::<(u64, u64, u32)>()).prop_map(|(memory, (offset, size, bits))| {
            let usage = BufferUsage::from_bits_retain(bits);
            Message::Buffer { memory, offset, desc: BufferDesc { size, usage } }
        }),
        (memory(name), any::<u64>(), image(), proptest::option::of(linear())).prop_map(
            |(memory, offset, desc, linear)| Message::Image { memory, offset, desc, linear }
        ),
        (handle_type, kind, identity(name)).prop_map(|(handle_type, kind, identity)| {
            Message::Semaphore(SemaphoreInfo { handle_type, kind, identity })
        }),
    ]
}

/// Any message of a session.
fn session_message(name: &'static str) -> impl Strategy<Value = Message> {
    let point = any::<(u32, u64)>();
    let point = point.prop_map(|(semaphore, value)| TimelinePoint { semaphore, value });
    let layouts = any::<(i32, i32)>().prop_map(|(old, new)| Layouts {
        old: ImageLayout::from_raw(old),
        new: ImageLayout::from_raw(new),
    });
    let optional = (proptest::option::of(point), proptest::option::of(layouts));
    let reasons = (0..5u32).prop_map(|number| {
        Message::decode(&by_hand(21, 4, &[(0, &number.to_le_bytes())])).unwrap()
    });
    prop_oneof![
        name.prop_map(|name| Message::Join { name }),
        (1u32..=64, 0u32..=8, any::<bool>(), name, name).prop_map(
            |(slots, semaphores, drops_frames, name, format)| {
                Message::Ring(RingInfo { slots, semaphores, drops_frames, name, format })
            }
        ),
        Just(Message::Ready),
        (0u32..64, 1u64.., optional, any::<[u64; 2]>()).prop_map(
            |(slot, sequence, (point, layouts), [published, tag])| {
                Message::Frame(FrameToken { slot, sequence, point, layouts, published, tag })
            }
        ),
        (0u32..64, 1u64..)
            .prop_map(|(slot, sequence)| Message::Release(ReleaseToken { slot, sequence })),
        reasons,
    ]
}

fn name_of(message: &mut Message) -> &mut String {
    match message {
        Message::Memory(memory) => &mut memory.identity.name,
        Message::Buffer { memory, .. } | Message::Image { memory, .. } => &mut memory.identity.name,
        Message::Semaphore(semaphore) => &mut semaphore.identity.name,
        other => panic!("{other:?} has no device"),
    }
}

/// Checks that bytes are the only encoding of a message, or decode to a typed error.
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
        prop_assert!(bytes.len() <= HEADER_LEN + 144 + MAX_NAME + 32 + 40);
        prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn a_session_message_survives_the_wire(message in session_message("\\PC{0,64}")) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= HEADER_LEN + 20 + 2 * MAX_NAME);
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
        message in prop_oneof![message("\\PC{0,16}"), session_message("\\PC{0,16}")],
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
        tail in any::<[u8; 10]>(), junk in any::<[u8; 16]>(), kind in 0u8..24, one in 0u8..2,
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
    fn an_image_has_its_whole_layout_or_zeros(
        flag in 0u8..3,
        origin in select(vec![0, 0, 1, 2, 0x80]),
        values in any::<[Option<u64>; 4]>(),
    ) {
        let mut bytes = image_message().1;
        bytes[16 + 108..][..2].copy_from_slice(&[flag, origin]);
        let values = values.map(Option::unwrap_or_default);
        for (at, value) in [112, 120, 128, 136].into_iter().zip(values) {
            bytes[16 + at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        check_any(&bytes)?;
        let good = origin < 2 && (flag == 1 || (flag == 0 && values == [0; 4]));
        prop_assert_eq!(Message::decode(&bytes).is_ok(), good);
    }

    #[test]
    fn any_body_is_a_message_or_a_typed_error(
        kind in 0u16..24, body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        check_any(&body)?;
        for descriptors in 0..2 {
            check_any(&by_hand_with(kind, body.len(), descriptors, &[(0, &body)]))?;
        }
    }
}

#[test]
fn each_invalid_field_of_a_session_is_refused_by_its_name() {
    let valid: Vec<_> = session_messages().into_iter().map(|(_, bytes)| bytes).collect();
    let cases: [(usize, &[Wrong]); 7] = [
        (0, &[(12, 1, "header.descriptors"), (17, 2, "body.name_length"), (20, 0x1b, "body.name")]),
        (
            1,
            &[
                (16, 0, "body.slots"),
                (16, 65, "body.slots"),
                (19, 1, "body.slots"),
                (20, 9, "body.semaphores"),
                (24, 2, "body.drops_frames"),
                (25, 1, "body.reserved"),
                (28, 2, "body.name"),
                (33, 2, "body.format_length"),
                (32, 6, "body.format"),
                (32, 4, "body"),
                (41, 0xff, "body.format"),
            ],
        ),
        (2, &[(12, 1, "header.descriptors")]),
        (
            3,
            &[
                (16, 64, "body.slot"),
                (20, 2, "body.has_point"),
                (21, 2, "body.has_layouts"),
                (22, 1, "body.reserved"),
                (32, 1, "body.semaphore"),
                (36, 1, "body.reserved"),
                (47, 1, "body.value"),
                (48, 1, "body.old_layout"),
                (55, 1, "body.new_layout"),
            ],
        ),
        (4, &[(20, 0, "body.semaphore"), (21, 0, "body.old_layout")]),
        (5, &[(16, 64, "body.slot"), (20, 1, "body.reserved")]),
        (6, &[(16, 5, "body.reason"), (19, 1, "body.reason")]),
    ];
    cases.into_iter().for_each(|(message, cases)| refused(&valid[message], cases));
    for mut no_sequence in [valid[3].clone(), valid[5].clone()] {
        no_sequence[24..32].fill(0);
        assert_eq!(field_of(Message::decode(&no_sequence).unwrap_err()), "body.sequence");
    }
}
