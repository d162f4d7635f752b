//! Where words go: for people on a terminal, as JSON for scripts.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::{clean, failure::Failure};

/// How this process shows what it has to say.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// `--json`.
    pub json: bool,
    /// Standard output is a terminal.
    pub output: bool,
    /// Standard error is one.
    pub error: bool,
}

impl Screen {
    /// Of this process.
    #[must_use]
    pub fn of_process(json: bool) -> Self {
        Self { json, output: io::stdout().is_terminal(), error: io::stderr().is_terminal() }
    }

    /// A line on standard output. Strangers' words in it are clean already.
    ///
    /// # Errors
    /// Where standard output does not take it.
    pub fn line(self, words: &str) -> Result<(), Failure> {
        write_out(format!("{words}\n").as_bytes())
    }

    /// A value on standard output, as JSON: indented on a terminal, else on one line.
    ///
    /// # Errors
    /// Where standard output does not take it.
    pub fn value(self, value: &Value) -> Result<(), Failure> {
        let written = if self.output { format!("{value:#}") } else { value.to_string() };
        self.line(&clean::json(&written))
    }

    /// One of many values, always on one line.
    ///
    /// # Errors
    /// Where standard output does not take it.
    pub fn value_line(self, value: &Value) -> Result<(), Failure> {
        self.line(&clean::json(&value.to_string()))
    }

    /// A remark for people on standard error; scripts are spared it.
    pub fn note(self, words: &str) {
        if !self.json {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(io::stderr(), "{}", clean::line(words));
        }
    }

    /// What came of a failure.
    pub fn failure(self, failure: &Failure) {
        let words = if self.json {
            clean::json(&failure.to_json().to_string())
        } else {
            format!("infinibay: {}", clean::text(&failure.to_string()))
        };
        let _ = writeln!(io::stderr(), "{words}");
    }

    /// A guest's words on standard output: as they are for a program, harmless for a terminal.
    ///
    /// # Errors
    /// Where standard output does not take them.
    pub fn guest_output(self, words: &str) -> Result<(), Failure> {
        if self.output { write_out(on_terminal(words).as_bytes()) } else { write_out(words.as_bytes()) }
    }

    /// The same on standard error.
    ///
    /// # Errors
    /// Where standard error does not take them.
    pub fn guest_error(self, words: &str) -> Result<(), Failure> {
        let shown = if self.error { on_terminal(words) } else { words.to_owned() };
        io::stderr()
            .write_all(shown.as_bytes())
            .map_err(|error| Failure::Local("standard error".into(), error))
    }

    /// A guest's words that go on: nothing is added at their end.
    ///
    /// # Errors
    /// Where standard output does not take them.
    pub fn guest_piece(self, words: &str) -> Result<(), Failure> {
        if self.output { write_out(clean::text(words).as_bytes()) } else { write_out(words.as_bytes()) }
    }
}

/// Cleaned, with an end to its last line.
fn on_terminal(words: &str) -> String {
    let mut shown = clean::text(words);
    if !shown.is_empty() && !shown.ends_with('\n') {
        shown.push('\n');
    }
    shown
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    written.map_err(|error| Failure::Local("standard output".into(), error))
}

/// Columns of the terminal, if there is one that says so.
#[must_use]
pub fn width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout().as_fd()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// A table without lines; cells are cleaned, and wrapped on a narrow terminal.
#[must_use]
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width() {
        table.set_width(width);
    }
    if !head.is_empty() {
        table.set_header(head.to_vec());
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| clean::line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_stand_below_each_other_where_characters_are_wide() {
        let rows = ["plain", "世界", "e\u{301}te\u{301}"].map(|name| vec![name.to_owned(), "|".to_owned()]);
        let table = table(&["NAME", "NEXT"], rows);
        // "世界" is as wide as four letters, and an accent of its own has no width.
        assert_eq!(
            table.lines().collect::<Vec<_>>(),
            ["NAME   NEXT", "plain  |", "世界   |", "e\u{301}te\u{301}    |",]
        );
    }
}
