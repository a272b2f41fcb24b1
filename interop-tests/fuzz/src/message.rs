//! Checks for any bytes that a peer may send as a message.

use gpu_interop::Error;
use gpu_interop::ipc::wire::{HEADER_LEN, Header, Kind, MAGIC, MAX_MESSAGE, Message, VERSION};

/// Largest allocation allowed while a message is decoded and encoded again, in bytes.
pub(crate) const LARGEST_ALLOCATION: usize = MAX_MESSAGE;

/// Panics unless `bytes` are the only encoding of a message, or decode to a typed error.
pub(crate) fn check(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(message) => {
            assert!(bytes.len() <= MAX_MESSAGE, "{} bytes were accepted", bytes.len());
            assert_eq!(message.encode(), bytes, "another encoding of {message:?}");
        }
        // A peer can cause only these two. Their text is part of the check.
        Err(error @ (Error::Invalid(_) | Error::Mismatch(_))) => {
            assert!(!error.to_string().is_empty())
        }
        Err(other) => panic!("{other:?}"),
    }
    if let Some(header) = bytes.first_chunk::<HEADER_LEN>() {
        check_header(header);
    }
}

/// A receiver reads the header first, and allocates what it announces.
fn check_header(bytes: &[u8; HEADER_LEN]) {
    if let Ok(header) = Header::decode(bytes) {
        assert!(header.message_len() <= MAX_MESSAGE, "{header:?}");
        assert_eq!(header.encode(), *bytes, "another encoding of {header:?}");
    }
}

/// Writes a valid header for a message of this length, of the kind in its header or a similar one.
pub(crate) fn fix_header(bytes: &mut [u8]) {
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
