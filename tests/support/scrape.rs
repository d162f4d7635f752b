//! Prometheus' text format, read strictly: what a scraper would stumble over fails the story.
#![allow(dead_code)] // each story uses a part of it

use std::collections::{BTreeMap, HashSet};

/// One line: its labels and its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// With its suffix, where the figure is a histogram.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A figure and its lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// A page, by figure.
#[derive(Debug)]
pub struct Scrape(pub BTreeMap<String, Family>);

impl Scrape {
    /// Fails with the line that is wrong.
    pub fn read(page: &str) -> Self {
        assert!(page.ends_with('\n'), "the last line has no end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let (mut series, mut help, mut current) = (HashSet::new(), None, None::<String>);
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no words: {line}"));
                assert!(
                    help.replace((name.to_owned(), words.to_owned())).is_none(),
                    "help of nothing: {line}"
                );
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(is_name(name), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let (about, help) = help.take().unwrap_or_else(|| panic!("{name} is not explained"));
                assert_eq!(about, name, "the help of another figure");
                let family = Family { kind: kind.to_owned(), help, samples: Vec::new() };
                assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
                current = Some(name.to_owned());
            } else {
                let sample = sample(line);
                let of = current.as_ref().unwrap_or_else(|| panic!("before any figure: {line}"));
                let family = families.get_mut(of).unwrap();
                let suffixes: &[&str] =
                    if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(
                    suffixes.iter().any(|suffix| sample.name == format!("{of}{suffix}")),
                    "not of {of}: {line}"
                );
                assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
                family.samples.push(sample);
            }
        }
        for (name, family) in &families {
            assert!(!family.samples.is_empty(), "{name} has no line");
            match family.kind.as_str() {
                "histogram" => check_histogram(name, family),
                "counter" => assert!(family.samples.iter().all(|sample| sample.value >= 0.0), "{name}"),
                _ => {}
            }
        }
        Self(families)
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.0.values().map(|family| family.samples.len()).sum()
    }

    /// The value of the one series with these labels; `None` where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<_, _> =
            labels.iter().map(|(label, word)| ((*label).to_owned(), (*word).to_owned())).collect();
        let sample = self.0.get(name)?.samples.iter().find(|sample| sample.labels == wanted)?;
        Some(sample.value)
    }
}

fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label), "{line}");
            let (word, after) = quoted(after).unwrap_or_else(|| panic!("no end of {label}: {line}"));
            assert!(labels.insert(label.to_owned(), word).is_none(), "{label} twice: {line}");
            rest = after;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
    }
    let value = rest.strip_prefix(' ').and_then(|value| value.parse::<f64>().ok());
    let value = value.unwrap_or_else(|| panic!("no value: {line}"));
    assert!(value.is_finite(), "{line}");
    Sample { name: name.to_owned(), labels, value }
}

/// Up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return Some((word, &text[place + 1..])),
            '\\' => word.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => word.push(c),
        }
    }
    None
}

/// Buckets only grow, and the last one holds everything.
fn check_histogram(name: &str, family: &Family) {
    let (mut below, mut bound) = (0.0, f64::NEG_INFINITY);
    for sample in &family.samples {
        if sample.name.ends_with("_bucket") {
            let le: f64 = sample.labels["le"].parse().unwrap_or_else(|_| panic!("{name}: {sample:?}"));
            if le <= bound {
                // Another set of labels begins.
                below = 0.0;
            }
            assert!(sample.value >= below, "{name} shrinks at {le}");
            (below, bound) = (sample.value, le);
        } else if sample.name.ends_with("_count") {
            assert!(bound.is_infinite(), "{name} has no +Inf");
            assert_eq!(sample.value.to_bits(), below.to_bits(), "{name}: +Inf is not everything");
        }
    }
}
