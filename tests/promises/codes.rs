//! The stable codes: those that the sources answer with, and those that the API's document explains.

use std::{collections::BTreeSet, path::Path};

/// What is written like a code and is none.
const OTHERS: [&str; 11] = [
    // What only the audit log says: nobody is left to be answered.
    "CLIENT_GONE",
    // Variables of the environment, besides those with a prefix.
    "APP_HOST",
    "DATABASE_URL",
    // Values of the schema, and how they are written.
    "BYTES_PER_SECOND",
    "CPU_USAGE",
    "DISK_READ",
    "FIVE_MINUTES",
    "NEVER_SEEN",
    "SCREAMING_SNAKE_CASE",
    // Constants that a macro names.
    "LOOKUP_COMPLEXITY",
    "USES_COMPLEXITY",
];

/// What makes an error of the code that is its first argument.
const MAKERS: [&str; 4] = ["ApiError::new(", "Self::new(", "coded(", "Failure::new("];

/// The codes in a source, its tests left out.
pub fn in_source(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let parts: Vec<_> = code.split('"').collect();
    let mut codes = BTreeSet::new();
    for pair in parts.windows(2) {
        let (before, word) = (pair[0].trim_end(), pair[1]);
        let is_made = MAKERS.iter().any(|maker| before.ends_with(maker));
        if is_code(word) && (is_made || word.contains('_')) && !OTHERS.contains(&word) {
            codes.insert(word.to_owned());
        }
    }
    codes
}

/// The codes that a document explains: in tables of codes, and of operations in the section on errors.
pub fn in_document(document: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let (mut of_codes, mut in_errors) = (false, false);
    for line in document.lines() {
        in_errors = if line.starts_with("## ") { line == "## Errors" } else { in_errors };
        let words: Vec<_> = line.split('`').skip(1).step_by(2).filter(|word| is_code(word)).collect();
        if !line.starts_with('|') {
            of_codes = false;
            if in_errors {
                codes.extend(words.into_iter().map(str::to_owned));
            }
        } else if line.starts_with("| code |") {
            of_codes = true;
        } else if of_codes {
            let first = line.split('|').nth(1).unwrap_or_default();
            codes.extend(
                words.into_iter().filter(|word| first.contains(&format!("`{word}`"))).map(str::to_owned),
            );
        }
    }
    codes
}

/// Those of all sources below a folder.
pub fn in_folder(folder: &Path) -> BTreeSet<String> {
    let mut sources = Vec::new();
    super::workspace::collect(folder, &mut sources);
    sources.retain(|source| !source.ends_with("tests.rs") && !source.iter().any(|part| part == "tests"));
    let read = |source: &std::path::PathBuf| std::fs::read_to_string(source).expect("a source file");
    sources.iter().flat_map(|source| in_source(&read(source))).collect()
}

fn is_code(word: &str) -> bool {
    let of_environment = ["INFINIBAY_", "CARGO_"].iter().any(|prefix| word.starts_with(prefix));
    !of_environment && word.len() > 4 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}
