//! Prometheus' text format, for figures that are looked up when asked for.

use std::fmt::{Display, Write as _};

/// How Prometheus reads a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    Counter,
    Gauge,
}

/// A page as it is written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// One figure's lines.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Page {
    /// Begins a figure; what is written of it has to follow at once.
    pub(super) fn family(&mut self, name: &'static str, reading: Reading, help: &str) -> Family<'_> {
        let kind = match reading {
            Reading::Counter => "counter",
            Reading::Gauge => "gauge",
        };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Reading::Gauge, help).value(&[], value);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One line. `value` is a number, printed as Rust does.
    pub(super) fn value(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(self.name);
        for (place, (label, word)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escaped(&word.to_string()));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(word: &str) -> String {
    word.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_prometheus_reads_them() {
        let mut page = Page::default();
        let mut family = page.family("x_total", Reading::Counter, "Something.");
        family.value(&[("vm", &"a"), ("reason", &"\"b\\c\nd\"")], 7);
        family.value(&[("vm", &"b"), ("reason", &"e")], 8);
        page.gauge("y_seconds", "Else.", 0.25);
        let expected = "# HELP x_total Something.\n# TYPE x_total counter\n\
             x_total{vm=\"a\",reason=\"\\\"b\\\\c\\nd\\\"\"} 7\nx_total{vm=\"b\",reason=\"e\"} 8\n\
             # HELP y_seconds Else.\n# TYPE y_seconds gauge\ny_seconds 0.25\n";
        assert_eq!(page.into_text(), expected);
    }
}
