//! What Windows calls time zones and keyboards.

/// IANA's name and Windows', by a tab; made from the Unicode CLDR's table `windowsZones`.
const ZONES: &str = include_str!("zones.tsv");

/// XKB's layout and Windows' language and keyboard.
const KEYBOARDS: [(&str, &str); 47] = [
    ("al", "041c:0000041c"),
    ("ara", "0401:00000401"),
    ("at", "0c07:00000407"),
    ("be", "080c:0000080c"),
    ("bg", "0402:00030402"),
    ("br", "0416:00000416"),
    ("by", "0423:00000423"),
    ("ca", "0c0c:00001009"),
    ("ca(multi)", "0c0c:00011009"),
    ("ch", "0807:00000807"),
    ("ch(fr)", "100c:0000100c"),
    ("cn", "0804:00000804"),
    ("cz", "0405:00000405"),
    ("de", "0407:00000407"),
    ("dk", "0406:00000406"),
    ("ee", "0425:00000425"),
    ("es", "0c0a:0000040a"),
    ("fi", "040b:0000040b"),
    ("fr", "040c:0000040c"),
    ("gb", "0809:00000809"),
    ("ge", "0437:00000437"),
    ("gr", "0408:00000408"),
    ("hr", "041a:0000041a"),
    ("hu", "040e:0000040e"),
    ("ie", "1809:00001809"),
    ("il", "040d:0000040d"),
    ("is", "040f:0000040f"),
    ("it", "0410:00000410"),
    ("jp", "0411:00000411"),
    ("kr", "0412:00000412"),
    ("latam", "080a:0000080a"),
    ("lt", "0427:00010427"),
    ("mk", "042f:0000042f"),
    ("nl", "0413:00000413"),
    ("no", "0414:00000414"),
    ("pl", "0415:00000415"),
    ("pt", "0816:00000816"),
    ("ro", "0418:00010418"),
    ("ru", "0419:00000419"),
    ("se", "041d:0000041d"),
    ("si", "0424:00000424"),
    ("sk", "041b:0000041b"),
    ("tr", "041f:0000041f"),
    ("tr(f)", "041f:0001041f"),
    ("us", "0409:00000409"),
    ("us(dvorak)", "0409:00010409"),
    ("us(intl)", "0409:00020409"),
];

/// Windows' name of an IANA time zone.
pub(super) fn timezone(iana: &str) -> Option<&'static str> {
    ZONES.lines().find_map(|line| line.split_once('\t').filter(|(name, _)| *name == iana).map(|(_, w)| w))
}

/// Windows' name of an XKB layout.
pub(super) fn keyboard(xkb: &str) -> Option<&'static str> {
    KEYBOARDS.iter().find(|(name, _)| *name == xkb).map(|(_, windows)| *windows)
}

#[cfg(test)]
mod tests {
    use super::{KEYBOARDS, ZONES, keyboard, timezone};

    #[test]
    fn the_tables_are_whole() {
        assert!(KEYBOARDS.is_sorted(), "it is read by people");
        for (name, windows) in KEYBOARDS {
            let (language, layout) = windows.split_once(':').expect(name);
            assert!(language.len() == 4 && layout.len() == 8, "{name}");
            assert!(u32::from_str_radix(language, 16).is_ok() && u32::from_str_radix(layout, 16).is_ok());
            assert_eq!(keyboard(name), Some(windows));
        }
        for line in ZONES.lines() {
            let (name, windows) = line.split_once('\t').expect(line);
            assert_eq!(timezone(name), Some(windows));
            assert!(
                windows == "UTC"
                    || [" Standard Time", " Time Zone "].iter().any(|w| windows.contains(w))
                    || windows.starts_with("UTC"),
                "{line}"
            );
        }
        assert_eq!(timezone("Europe/Madrid"), Some("Romance Standard Time"));
        assert_eq!(timezone("Etc/UTC"), Some("UTC"));
        assert_eq!((timezone("Mars/Olympus"), timezone(""), keyboard("xx")), (None, None, None));
    }
}
