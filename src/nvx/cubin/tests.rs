use proptest::prelude::*;

use super::*;
use crate::error::Error;

/// The section `.nv.info.fill` of a cubin for sm_90: four parameters, described last to first.
const INFO: [u8; 0x70] = [
    0x04, 0x37, 0x04, 0x00, 0x78, 0x00, 0x00, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x03, 0x00, 0x10, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x02, 0x00, 0x0c, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x08, 0x00, 0x00, 0xf0, 0x11, 0x00, 0x04, 0x17, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0xf0, 0x21, 0x00, 0x03, 0x1b, 0xff, 0x00, 0x04, 0x1c, 0x08, 0x00,
    0x90, 0x00, 0x00, 0x00, 0x60, 0x04, 0x00, 0x00, 0x04, 0x1e, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x03, 0x19, 0x14, 0x00, 0x04, 0x0a, 0x08, 0x00, 0x04, 0x00, 0x00, 0x00, 0x10, 0x02, 0x14, 0x00,
];

const NAMES: &[u8] = b"\0fill\0helper\0.shstrtab\0.symtab\0.nv.info.fill\0";
const FILL: u32 = 1;
const HELPER: u32 = 6;
const SECTION_NAMES: u32 = 13;
const SYMBOLS: u32 = 23;
const KERNEL_INFO: u32 = 31;

/// A cubin with one kernel, one function that is not a kernel, and the section that ptxas writes for the
/// kernel.
fn image() -> Vec<u8> {
    let symbol = |name: u32, other: u8| {
        let mut row = [0u8; 24];
        row[..4].copy_from_slice(&name.to_le_bytes());
        row[4] = 0x12; // a global function
        row[5] = other;
        row[6] = 3; // of this section
        row
    };
    let symbols = [symbol(0, 0), symbol(HELPER, 0), symbol(FILL, 0x10)].concat();
    let parts: [(u32, u32, u32, &[u8]); 4] = [
        (0, 0, 0, &[]),
        (SECTION_NAMES, 3, 0, NAMES),
        (SYMBOLS, 2, 1, &symbols),
        (KERNEL_INFO, 0x7000_0000, 2, &INFO),
    ];
    let mut bytes = vec![0u8; 64];
    let mut rows = Vec::new();
    for (name, kind, link, data) in parts {
        let mut row = [0u8; 64];
        row[..4].copy_from_slice(&name.to_le_bytes());
        row[4..8].copy_from_slice(&kind.to_le_bytes());
        row[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        row[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
        row[40..44].copy_from_slice(&link.to_le_bytes());
        rows.extend_from_slice(&row);
        bytes.extend_from_slice(data);
    }
    let sections = bytes.len() as u64;
    bytes.extend_from_slice(&rows);
    let segments = bytes.len() as u64;
    let mut segment = [0u8; 56];
    segment[8..16].copy_from_slice(&64u64.to_le_bytes());
    segment[32..40].copy_from_slice(&(sections - 64).to_le_bytes());
    bytes.extend_from_slice(&segment);

    bytes[..9].copy_from_slice(b"\x7fELF\x02\x01\x01\x33\x07");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&190u16.to_le_bytes());
    bytes[32..40].copy_from_slice(&segments.to_le_bytes());
    bytes[40..48].copy_from_slice(&sections.to_le_bytes());
    bytes[48..52].copy_from_slice(&0x005a_055a_u32.to_le_bytes());
    for (at, value) in [(52, 64), (54, 56), (56, 1), (58, 64), (60, 4), (62, 1u16)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn refused(bytes: &[u8]) -> String {
    match Cubin::new(bytes) {
        Err(Error::Invalid(invalid)) => {
            assert_eq!(invalid.parameter, "cubin");
            assert!(invalid.help.is_some(), "{invalid}");
            invalid.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cubin_lists_its_kernels_and_their_parameters() {
    let cubin = Cubin::new(image()).unwrap();
    assert_eq!(cubin.bytes(), image());
    assert_eq!(cubin.architecture(), Some(90));
    let [kernel] = cubin.kernels() else { panic!("{cubin:?}") };
    assert_eq!(kernel.name, "fill");
    let sizes = [(0, 8), (8, 4), (12, 4), (16, 4)];
    let expected = sizes.map(|(offset, size)| Parameter { offset, size });
    assert_eq!(kernel.parameters.as_deref(), Some(&expected[..]));
    assert_eq!(cubin.kernel("fill").unwrap(), kernel);
    for missing in ["helper", "Fill", ""] {
        let error = cubin.kernel(missing).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains("it has fill"), "{error}");
    }
}

#[test]
fn bytes_in_another_format_are_refused_by_name() {
    let ptx = include_bytes!("../../../shaders/fill.ptx");
    assert!(refused(ptx).contains("cuda::Endpoint::link"), "{}", refused(ptx));
    assert!(refused(b"").contains("empty"));
    assert!(refused(b"PK\x03\x04").contains("not an ELF"));
    assert!(refused(&[0x50, 0xed, 0x55, 0xba, 0, 0]).contains("fat binary"));
    let with = |at: usize, value: u8| {
        let mut bytes = image();
        bytes[at] = value;
        bytes
    };
    assert!(refused(&with(18, 62)).contains("machine 62"));
    assert!(refused(&with(16, 1)).contains("not linked"));
    assert!(refused(&with(4, 1)).contains("64-bit"));
    assert!(refused(&with(58, 40)).contains("section headers of 40 bytes"));
    assert!(refused(&with(60, 0)).contains("no section headers"));
    assert!(refused(&with(39, 0x7f)).contains("program headers end past"));
}

#[test]
fn an_image_that_is_cut_off_anywhere_is_refused() {
    let whole = image();
    for end in 0..whole.len() {
        assert!(Cubin::new(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
    }
}

#[test]
fn parameters_in_an_unknown_format_count_as_absent() {
    // Cut off before the total, which is the last attribute but one.
    for end in 0..0x64 {
        assert_eq!(elf::parameters(&INFO[..end]), None, "{end}");
    }
    let mut gap = INFO;
    gap[0x10] = 7; // the last parameter is number 7
    assert_eq!(elf::parameters(&gap), None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(
        changes in prop::collection::vec((0usize..1000, any::<u8>()), 1..8),
        end in 0usize..1000,
    ) {
        let mut bytes = image();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Cubin::new(&bytes[..end.min(bytes.len())]);
        let _ = Cubin::new(bytes);
    }

    #[test]
    fn no_parameter_section_makes_the_parser_panic(info in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = elf::parameters(&info);
    }
}
