//! What a document says: its sections, and the tests that it names.

/// A part of a document with a title of its own, without the parts below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    pub title: String,
    pub text: String,
}

/// The sections of a document: what follows a heading, and a paragraph that begins with bold words.
/// What stands in fences is nobody's text.
pub fn sections(document: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut begin = |title: &str, text: &str| {
        sections.push(Section { title: title.to_owned(), text: text.to_owned() });
    };
    let (mut fenced, mut after_blank) = (false, true);
    let mut pending: Option<(String, String)> = None;
    for line in document.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let heading = line.starts_with('#').then(|| line.trim_start_matches('#').trim());
            let bold = line.strip_prefix("**").filter(|_| after_blank).and_then(|rest| rest.split_once("**"));
            if let Some(title) = heading.or(bold.map(|(title, _)| title)) {
                if let Some((title, text)) = pending.take() {
                    begin(&title, &text);
                }
                pending = Some((title.trim_end_matches('.').to_owned(), String::new()));
            }
            if let Some((_, text)) = &mut pending {
                text.push_str(line);
                text.push('\n');
            }
        }
        after_blank = line.trim().is_empty();
    }
    if let Some((title, text)) = pending {
        begin(&title, &text);
    }
    sections
}

/// What a text names as a test.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    File(String),
    Test(String),
}

/// The tests that a text names: files of tests, and names of functions. In a column for tests everything in
/// backticks is one; elsewhere what has a module before it, or is longer than any other name.
pub fn named(text: &str) -> Vec<Named> {
    let mut names = Vec::new();
    let mut column = None;
    let mut prose = String::new();
    for line in text.lines() {
        if !line.starts_with('|') {
            column = None;
            prose.push_str(line);
            prose.push('\n');
            continue;
        }
        let cells = cells(line);
        let is_for_tests =
            |cell: &String| cell == "test" || cell == "told by" || cell.starts_with("test in ");
        column = column.or_else(|| cells.iter().position(is_for_tests));
        for (index, cell) in cells.iter().enumerate() {
            for word in code(cell) {
                match reference(word) {
                    Some(name) => names.push(name),
                    None if column == Some(index) && !is_for_tests(cell) => {
                        names.push(Named::Test(word.to_owned()))
                    }
                    None => {}
                }
            }
        }
    }
    names.extend(code(&prose).filter_map(reference));
    names
}

/// The rows of tables of promises that name no test.
pub fn untold(text: &str) -> Vec<String> {
    let (mut rows, mut column) = (Vec::new(), None);
    for line in text.lines() {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells = cells(line);
        match column {
            None => column = cells.iter().position(|cell| cell == "test" || cell == "told by"),
            Some(column) => {
                let cell = cells.get(column).map_or("", String::as_str);
                let tells = cell.starts_with("the same") || code(cell).next().is_some();
                if !tells && !cell.starts_with("---") {
                    rows.push(line.to_owned());
                }
            }
        }
    }
    rows
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn reference(word: &str) -> Option<Named> {
    let is_file = [".rs", ".sh"].iter().any(|end| word.ends_with(end));
    let is_ours = ["tests/", "src/", "crates/"].iter().any(|folder| word.starts_with(folder));
    if is_file && is_ours {
        return Some(Named::File(word.to_owned()));
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:…".contains(c);
    // Figures have long names too, and begin with their owner.
    let is_figure = word.starts_with("infinibay_") || word.starts_with("process_");
    let is_long = word.contains("::") || word.ends_with('…') || word.matches('_').count() > 3;
    let is_test =
        !word.is_empty() && word.chars().all(is_name) && is_long && !is_figure && word.contains('_');
    is_test.then(|| Named::Test(word.to_owned()))
}
