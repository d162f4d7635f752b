//! The description in a Windows image (`install.wim`): XML, in UTF-16, never compressed.

use quick_xml::{Reader, events::Event};

use super::{Disc, Extents, u16_at, u64_at};

/// Longest description that is read, bytes; that of eleven editions has about 100,000.
const MAX_XML: u64 = 4 << 20;
/// Where the header says where the description is.
const XML_ENTRY: usize = 72;

/// The first edition that an image holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::media) struct WindowsImage {
    /// As `Windows 11 Pro`.
    pub(in crate::media) name: Option<String>,
    /// As `22631`.
    pub(in crate::media) build: Option<u32>,
    /// As `Client`, `Server`, `Server Core`.
    pub(in crate::media) installation: Option<String>,
    /// Microsoft's number: 0 x86, 9 amd64, 12 arm64.
    pub(in crate::media) arch: Option<u32>,
}

/// Reads the description; none where it is no such image.
pub(super) fn read(disc: &Disc<'_>, file: &Extents) -> Option<WindowsImage> {
    let header = disc.read_of(file, 0, 208)?;
    if !header.starts_with(b"MSWIM\0\0\0") {
        return None;
    }
    // Seven bytes of length, one of flags.
    let length = u64_at(&header, XML_ENTRY)? & 0x00ff_ffff_ffff_ffff;
    let place = u64_at(&header, XML_ENTRY + 8)?;
    let xml = disc.read_of(file, place, length.min(MAX_XML))?;
    let units: Vec<u16> = (0..xml.len() / 2).filter_map(|unit| u16_at(&xml, unit * 2)).collect();
    Some(parse(String::from_utf16_lossy(&units).trim_start_matches('\u{feff}')))
}

/// What stands of the first `IMAGE`. Text that ends early gives what there was.
fn parse(xml: &str) -> WindowsImage {
    let mut image = WindowsImage::default();
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) if path.len() < 8 => {
                path.push(start.local_name().as_ref().to_owned());
            }
            Ok(Event::End(end)) => {
                if end.local_name().as_ref() == "IMAGE" {
                    return image;
                }
                path.pop();
            }
            Ok(Event::Text(text)) => {
                let text = text.trim();
                let number = text.parse().ok();
                let words = (!text.is_empty()).then(|| text.chars().take(100).collect());
                match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    ["WIM", "IMAGE", "NAME"] => image.name = words,
                    ["WIM", "IMAGE", "WINDOWS", "ARCH"] => image.arch = number,
                    ["WIM", "IMAGE", "WINDOWS", "INSTALLATIONTYPE"] => image.installation = words,
                    ["WIM", "IMAGE", "WINDOWS", "VERSION", "BUILD"] => image.build = number,
                    _ => {}
                }
            }
            Ok(Event::Eof) | Err(_) => return image,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{WindowsImage, parse};

    #[test]
    fn the_first_edition_is_told() {
        let xml = "<WIM><TOTALBYTES>1</TOTALBYTES><IMAGE INDEX=\"1\"><DIRCOUNT>2</DIRCOUNT><WINDOWS><ARCH>9</ARCH>\
                   <INSTALLATIONTYPE>Client</INSTALLATIONTYPE><VERSION><MAJOR>10</MAJOR><BUILD>22631</BUILD></VERSION>\
                   </WINDOWS><NAME>Windows 11 Home</NAME></IMAGE><IMAGE INDEX=\"2\"><NAME>Windows 11 Pro</NAME></IMAGE></WIM>";
        let expected = WindowsImage {
            name: Some("Windows 11 Home".to_owned()),
            build: Some(22631),
            installation: Some("Client".to_owned()),
            arch: Some(9),
        };
        assert_eq!(parse(xml), expected);
        assert_eq!(
            parse("<WIM><IMAGE><NAME>x"),
            WindowsImage { name: Some("x".to_owned()), ..Default::default() }
        );
        assert_eq!(parse(&"<a>".repeat(100_000)), WindowsImage::default());
    }
}
