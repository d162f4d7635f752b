//! What must have come out of a template, whoever wrote it.

use quick_xml::{Reader, events::Event};

use super::Recipe;

const UNATTEND: &str = "urn:schemas-microsoft-com:unattend";

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line that is at fault, counted from 1; absent where it is the whole.
    pub(super) line: Option<usize>,
    /// Why.
    pub(super) reason: String,
}

/// Of one line, counted from 1: `line N` and these words.
fn of_line(line: usize, words: impl std::fmt::Display) -> Result<(), Fault> {
    Err(Fault { line: Some(line), reason: format!("line {line} {words}") })
}

fn of_all(reason: &str) -> Result<(), Fault> {
    Err(Fault { line: None, reason: reason.to_owned() })
}

/// Looks at the whole text.
pub(super) fn check(recipe: Recipe, text: &str) -> Result<(), Fault> {
    match recipe {
        Recipe::Autoinstall => autoinstall(text),
        Recipe::Preseed => preseed(text),
        Recipe::Kickstart => kickstart(text),
        Recipe::Autounattend => autounattend(text),
    }
}

fn autoinstall(text: &str) -> Result<(), Fault> {
    if text.lines().next() != Some("#cloud-config") {
        return of_line(1, "is not #cloud-config");
    }
    if let Some(number) = text.lines().position(|line| line.trim_start_matches(' ').starts_with('\t')) {
        return of_line(number + 1, "is indented with a tab");
    }
    if !text.lines().any(|line| line == "autoinstall:") {
        return of_all("there is no autoinstall:");
    }
    if !text.lines().any(|line| line.trim() == "version: 1") {
        return of_all("there is no version: 1");
    }
    Ok(())
}

fn preseed(text: &str) -> Result<(), Fault> {
    const TYPES: [&str; 9] =
        ["string", "boolean", "select", "multiselect", "password", "note", "text", "title", "error"];
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace().skip(1);
        let question = words.next().is_some_and(|question| question.contains('/'));
        if !question || !words.next().is_some_and(|kind| TYPES.contains(&kind)) || line.ends_with('\\') {
            return of_line(number + 1, "has no owner, question, type and value");
        }
    }
    Ok(())
}

fn kickstart(text: &str) -> Result<(), Fault> {
    let mut open = None;
    for (number, line) in text.lines().enumerate() {
        let Some(word) = line.strip_prefix('%').and_then(|rest| rest.split_ascii_whitespace().next()) else {
            continue;
        };
        match (word, open) {
            ("end", Some(_)) => open = None,
            ("end", None) => return of_line(number + 1, "ends no section"),
            ("include" | "ksappend", _) => return of_line(number + 1, "reads another file"),
            (_, None) => open = Some(number + 1),
            (_, Some(began)) => {
                return of_line(number + 1, format!("begins a section in that of line {began}"));
            }
        }
    }
    open.map_or(Ok(()), |began| of_line(began, "begins a section that has no %end"))
}

fn autounattend(text: &str) -> Result<(), Fault> {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut roots) = (0_usize, 0);
    loop {
        let at = reader.buffer_position();
        let line = || {
            let before = usize::try_from(at).ok().and_then(|at| text.get(..at)).unwrap_or(text);
            before.matches('\n').count() + 1
        };
        match reader.read_event() {
            Err(error) => return of_line(line(), format!("is no XML: {error}")),
            Ok(Event::Start(element)) => {
                if depth == 0 {
                    let namespace = element.try_get_attribute("xmlns").ok().flatten();
                    let named = namespace.is_some_and(|xmlns| &*xmlns.value == UNATTEND);
                    if element.name().as_ref() != "unattend" || !named {
                        return of_line(line(), format!("is not <unattend xmlns={UNATTEND:?}>"));
                    }
                    roots += 1;
                }
                depth += 1;
            }
            Ok(Event::End(_)) => depth = depth.saturating_sub(1),
            Ok(Event::DocType(_)) => return of_line(line(), "declares a document type"),
            Ok(Event::Eof) => break,
            Ok(_) => {}
        }
    }
    if roots == 1 && depth == 0 { Ok(()) } else { of_all("it is not one whole document") }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Recipe, check};

    #[test]
    fn what_no_installer_reads_is_seen() {
        let bad = [
            (Recipe::Autoinstall, "autoinstall:\n  version: 1\n", "line 1"),
            (Recipe::Autoinstall, "#cloud-config\nautoinstall:\n \tversion: 1\n", "line 3"),
            (Recipe::Autoinstall, "#cloud-config\nversion: 1\n", "no autoinstall"),
            (Recipe::Autoinstall, "#cloud-config\nautoinstall:\n", "version"),
            (Recipe::Preseed, "# fine\nd-i a/b string x\nd-i a/b\n", "line 3"),
            (Recipe::Preseed, "d-i a/b string x\\\n", "line 1"),
            (Recipe::Preseed, "d-i ab string x\n", "line 1"),
            (Recipe::Kickstart, "%packages\n", "line 1"),
            (Recipe::Kickstart, "lang x\n%end\n", "line 2"),
            (Recipe::Kickstart, "%pre\n%post\n%end\n", "line 2"),
            (Recipe::Kickstart, "%include /etc/shadow\n", "line 1"),
            (Recipe::Autounattend, "", "whole"),
            (Recipe::Autounattend, "<unattend/>", "whole"),
            (Recipe::Autounattend, "<unattend></unattend>", "line 1"),
            (
                Recipe::Autounattend,
                "<unattend xmlns='urn:schemas-microsoft-com:unattend'>\n<a></b></unattend>",
                "line 2",
            ),
            (Recipe::Autounattend, "<unattend xmlns='urn:schemas-microsoft-com:unattend'>", "whole"),
        ];
        for (recipe, text, says) in bad {
            let Fault { line, reason } = check(recipe, text).unwrap_err();
            assert_eq!(line.is_some(), reason.starts_with("line "), "{reason}");
            assert!(reason.contains(says), "{text:?}: {reason}");
        }
        check(Recipe::Autounattend, "<unattend xmlns='urn:schemas-microsoft-com:unattend'></unattend>")
            .unwrap();
        check(Recipe::Preseed, "\n#_preseed_V1\nd-i netcfg/get_domain string\n").unwrap();
    }
}
