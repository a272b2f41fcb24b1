//! The committed header is the one that cbindgen makes from the code.

use std::{env, fs, path::Path};

#[test]
fn the_header_is_up_to_date() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))?;
    let mut made = Vec::new();
    cbindgen::Builder::new().with_crate(folder).with_config(config).generate()?.write(&mut made);
    let made = String::from_utf8(made)?;
    let committed = folder.join("include/gpu_interop.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&committed, &made)?;
    }
    assert!(
        fs::read_to_string(committed)? == made,
        "the header is out of date: run `UPDATE_HEADER=1 cargo test --test header`"
    );
    Ok(())
}
