//! How a bench tells what it found: lines for people on standard error, and at its end one JSON
//! object on standard output, which `scripts/bench` reads.

use serde::Serialize;

#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// None: told, not judged.
    bound: Option<f64>,
    /// Which side of the bound is good: `max`, at most; `min`, at least.
    direction: &'static str,
    ok: bool,
    note: String,
}

/// What one bench found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    bench: &'static str,
    figures: Vec<Figure>,
}

impl Figures {
    pub(crate) fn of(bench: &'static str) -> Self {
        Self { bench, figures: Vec::new() }
    }

    pub(crate) fn at_least(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        bound: f64,
        note: impl Into<String>,
    ) {
        let note = note.into();
        self.push(Figure {
            name,
            value,
            unit,
            bound: Some(bound),
            direction: "min",
            ok: value >= bound,
            note,
        });
    }

    pub(crate) fn at_most(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        bound: f64,
        note: impl Into<String>,
    ) {
        let note = note.into();
        self.push(Figure {
            name,
            value,
            unit,
            bound: Some(bound),
            direction: "max",
            ok: value <= bound,
            note,
        });
    }

    /// Without a bound.
    pub(crate) fn told(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) {
        self.push(Figure { name, value, unit, bound: None, direction: "max", ok: true, note: note.into() });
    }

    fn push(&mut self, figure: Figure) {
        let Figure { name, value, unit, bound, direction, ok, note } = &figure;
        let bound = bound.map_or(String::new(), |bound| {
            let verdict = if *ok { "holds" } else { "MISSED" };
            format!(" ({direction} {bound}: {verdict})")
        });
        eprintln!("{name}: {value:.3} {unit}{bound}; {note}");
        // JSON has no infinity; a ratio over nothing is as bad as none.
        let value = if value.is_finite() { *value } else { -1.0 };
        self.figures.push(Figure { value, ..figure });
    }

    /// The last line.
    pub(crate) fn tell(self) {
        println!("{}", serde_json::to_string(&self).expect("figures are plain data"));
    }
}

/// Something worth a line for whoever watches.
pub(crate) fn say(words: impl AsRef<str>) {
    eprintln!("  {}", words.as_ref());
}
