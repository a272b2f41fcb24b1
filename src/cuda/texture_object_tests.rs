use super::*;
use crate::error::Error;
use crate::format::CudaFormat;

const ROWS: Rows = Rows {
    address: 0x7f00_0000_0400,
    format: CudaFormat { array_format: 1, channels: 4 },
    width: 113,
    height: 211,
    pitch: 512,
};

/// What an H200 tells.
fn told(attribute: Attribute) -> Result<i32> {
    Ok(match attribute {
        Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT => 512,
        Attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT => 32,
        Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_WIDTH => 131_072,
        Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_HEIGHT => 65_000,
        Attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_PITCH => 2_097_120,
        other => panic!("{other:?} is asked for"),
    })
}

#[test]
fn rows_are_aligned_as_the_device_wants_it() {
    check_rows(&ROWS, told).unwrap();
    let unaligned = Rows { address: 3, pitch: 7, ..ROWS };
    check_rows(&unaligned, |attribute| told(attribute).map(|it| if it <= 512 { 0 } else { it }))
        .unwrap();
    for (rows, field, alignment) in [
        (Rows { address: 0x7f00_0000_0500, ..ROWS }, "offset", "512"),
        (Rows { pitch: 452, ..ROWS }, "row_pitch", "32"),
    ] {
        match check_rows(&rows, told) {
            Err(Error::Invalid(invalid)) => {
                assert_eq!(invalid.parameter, field);
                assert!(invalid.problem.contains(alignment) && invalid.help.is_some(), "{invalid}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rows_over_the_devices_limits_are_refused_with_the_limit() {
    for (rows, limit) in [
        (Rows { width: 131_073, ..ROWS }, "131072"),
        (Rows { height: 65_001, ..ROWS }, "65000"),
        (Rows { pitch: 2_097_152, ..ROWS }, "2097120"),
    ] {
        match check_rows(&rows, told) {
            Err(Error::Missing(missing)) => {
                assert!(missing.to_string().contains(limit), "{missing}");
            }
            other => panic!("{other:?}"),
        }
    }
}
