//! Installation discs, as far as they say what they are.

use infinibay::install::{SeedFile, build_medium};

/// A disc of this label with these files.
pub(crate) fn disc(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|(path, contents)| SeedFile { path: (*path).to_owned(), contents: contents.to_vec() })
        .collect();
    build_medium(label, &files).unwrap()
}

/// What a disc of Windows of that build is installed from.
pub(crate) fn windows(build: &str) -> Vec<u8> {
    let xml = format!(
        "\u{feff}<WIM><IMAGE INDEX=\"1\"><WINDOWS><ARCH>9</ARCH><INSTALLATIONTYPE>Client</INSTALLATIONTYPE>\
         <VERSION><MAJOR>10</MAJOR><BUILD>{build}</BUILD></VERSION></WINDOWS><NAME>Windows Pro</NAME></IMAGE></WIM>"
    );
    let xml: Vec<u8> = xml.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut wim = vec![0; 208];
    wim[..8].copy_from_slice(b"MSWIM\0\0\0");
    wim[72..80].copy_from_slice(&(xml.len() as u64 | 2 << 56).to_le_bytes());
    wim[80..88].copy_from_slice(&208_u64.to_le_bytes());
    wim.extend(xml);
    wim
}
