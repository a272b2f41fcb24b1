use super::*;
use crate::desc::ImageLayout;

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
        (
            Message::Join { name: "Ö".into() },
            by_hand_with(16, 6, 0, &[(0, &[2]), (4, "Ö".as_bytes())]),
        ),
        (
            Message::Ring(ring),
            by_hand_with(
                17,
                30,
                0,
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
        (Message::Ready, by_hand_with(18, 0, 0, &[])),
        (Message::Frame(bare), by_hand_with(19, 56, 0, &frame)),
        (Message::Frame(full), by_hand_with(19, 56, 0, &with_both)),
        (Message::Release(release), by_hand_with(20, 16, 0, &[(0, &[5]), (8, &[8, 9])])),
        (Message::Leave(LeaveReason::Evicted), by_hand_with(21, 4, 0, &[(0, &[1])])),
    ]
}

#[test]
fn every_field_of_a_session_is_at_its_documented_offset() {
    for (message, bytes) in session_messages() {
        assert_eq!(message.encode(), bytes, "{message:?}");
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }
}

/// An offset, an invalid value of the byte, and the name of its field.
type Wrong = (usize, u8, &'static str);

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
    for (message, cases) in cases {
        for &(at, value, field) in cases {
            let mut wrong = valid[message].clone();
            wrong[at] = value;
            let found = Message::decode(&wrong).map_or_else(field_of, |_| String::new());
            assert_eq!(found, field, "message {message}, byte {at} as {value:#x}");
        }
    }
    for mut no_sequence in [valid[3].clone(), valid[5].clone()] {
        no_sequence[24..32].fill(0);
        assert_eq!(field_of(Message::decode(&no_sequence).unwrap_err()), "body.sequence");
    }
}

#[test]
fn a_body_of_a_session_that_is_cut_short_names_a_field_that_is_missing() {
    for (_, bytes) in session_messages() {
        for body_len in 0..bytes.len() - HEADER_LEN {
            let mut short = bytes[..HEADER_LEN + body_len].to_vec();
            short[8..12].copy_from_slice(&(body_len as u32).to_le_bytes());
            let error = Message::decode(&short).unwrap_err();
            assert!(error.to_string().contains("is cut off"), "{error}");
        }
    }
}
