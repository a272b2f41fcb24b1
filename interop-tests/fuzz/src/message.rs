//! What holds of any bytes that a peer may send for a message.

use gpu_interop::Error;
use gpu_interop::ipc::wire::{HEADER_LEN, Header, Kind, MAGIC, MAX_MESSAGE, Message, VERSION};

/// What reading a message, and writing it again, may allocate at once, in bytes.
pub(crate) const LARGEST_ALLOCATION: usize = MAX_MESSAGE;

/// Panics where `bytes` are neither a message, of which they are the one encoding, nor a typed error.
pub(crate) fn check(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(message) => {
            assert!(bytes.len() <= MAX_MESSAGE, "{} bytes were taken", bytes.len());
            assert_eq!(message.encode(), bytes, "another encoding of {message:?}");
        }
        // What a peer can do wrong is one of these two. Their text is written too: it is a part of the
        // answer.
        Err(error @ (Error::Invalid(_) | Error::Mismatch(_))) => {
            assert!(!error.to_string().is_empty())
        }
        Err(other) => panic!("{other:?}"),
    }
    if let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        check_header(header);
    }
}

/// A receiver knows the header alone first, and makes room for what it says.
fn check_header(bytes: &[u8; HEADER_LEN]) {
    if let Ok(header) = Header::decode(bytes) {
        assert!(header.message_len() <= MAX_MESSAGE, "{header:?}");
        assert_eq!(header.encode(), *bytes, "another encoding of {header:?}");
    }
}

/// Writes the header that a message of this length has, and of the kind it says or one near it.
pub(crate) fn put_header_right(bytes: &mut [u8]) {
    let body_len = bytes.len().saturating_sub(HEADER_LEN) as u32;
    let Some(header) = bytes.first_chunk_mut::<HEADER_LEN>() else { return };
    let number = u16::from_le_bytes([header[6], header[7]]);
    let near = Kind::ALL[usize::from(number) % Kind::ALL.len()];
    let kind = Kind::from_number(number).unwrap_or(near);
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&kind.number().to_le_bytes());
    header[8..12].copy_from_slice(&body_len.to_le_bytes());
    header[12..14].copy_from_slice(&kind.descriptors().to_le_bytes());
    header[14..].fill(0);
}
