//! Each promise names its test, and the test is there: what the documents name is looked up in the sources,
//! and a section of a document of promises that names none fails here, unless it is said why.

#[path = "promises/codes.rs"]
mod codes;
#[path = "promises/document.rs"]
mod document;
#[path = "promises/workspace.rs"]
mod workspace;

use std::{fs, path::Path};

use document::{Named, named, sections, untold};
use workspace::{Workspace, functions};

/// The documents that promise something, each with the sections that do not, and why.
const PROMISES: [(&str, &[(&str, &str)]); 4] = [
    ("API.md", &[]),
    ("OPERATIONS.md", &[]),
    ("THREAT-MODEL.md", &[]),
    ("WIRE.md", &[("The guest channel's seal", "it says what the page is about")]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(document: &str) -> String {
    fs::read_to_string(root().join("docs").join(document)).expect("a document")
}

fn unknown<'a>(workspace: &Workspace, names: &'a [Named]) -> Vec<&'a Named> {
    let is_unknown = |name: &&Named| match name {
        Named::File(file) => !workspace.has_file(file),
        Named::Test(test) => !workspace.has_test(test),
    };
    names.iter().filter(is_unknown).collect()
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let workspace = Workspace::read(root());
    assert!(
        workspace.tests.len() > 900,
        "only {} tests were seen: the reader is blind",
        workspace.tests.len()
    );
    let (mut seen, mut faults) = (0, Vec::new());
    for (document, _) in PROMISES.iter().chain([&("CLI.md", &[] as &[_])]) {
        for section in sections(&text(document)) {
            let names = named(&section.text);
            seen += names.len();
            faults.extend(
                unknown(&workspace, &names)
                    .into_iter()
                    .map(|name| format!("{document}, {}: {name:?} is not there", section.title)),
            );
        }
    }
    assert!(seen > 50, "only {seen} names were seen: the reader is blind");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_section_names_a_test_or_says_why_not() {
    let mut faults = Vec::new();
    for (document, without) in PROMISES {
        let sections = sections(&text(document));
        for section in &sections {
            let reason = without.iter().find(|(title, _)| *title == section.title);
            match (reason, named(&section.text).is_empty()) {
                (None, true) => faults.push(format!("{document}, {}: names no test", section.title)),
                (Some(_), false) => {
                    faults.push(format!("{document}, {}: names one after all", section.title))
                }
                (None, false) | (Some(_), true) => {}
            }
            faults.extend(
                untold(&section.text).into_iter().map(|row| format!("{document}: by no test: {row}")),
            );
        }
        for (title, _) in without {
            if !sections.iter().any(|section| section.title == *title) {
                faults.push(format!("{document}: there is no section {title}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_code_is_in_the_tables_and_the_other_way_round() {
    let answered = codes::in_folder(&root().join("src"));
    let document = text("API.md");
    let explained = codes::in_document(&document);
    assert!(answered.len() > 60 && explained.len() > 60, "the reader is blind");
    let missing: Vec<_> = answered.difference(&explained).collect();
    assert!(missing.is_empty(), "in no table of docs/API.md: {missing:?}");
    let mut sources = Vec::new();
    workspace::collect(&root().join("src"), &mut sources);
    let all: String =
        sources.iter().map(|source| fs::read_to_string(source).expect("a source file")).collect();
    // In SQL too.
    let is_said = |code: &str| ['"', '\''].iter().any(|quote| all.contains(&format!("{quote}{code}{quote}")));
    let unknown: Vec<_> = explained.iter().filter(|code| !is_said(code)).collect();
    assert!(unknown.is_empty(), "nothing answers with these: {unknown:?}");
}

#[test]
fn codes_are_told_from_other_words() {
    let source = "// ApiError::new(\"NOT_SAID\")\nApiError::new(\n    \"LAGGED\", \"GET\");\nlet x = \"NAME_TAKEN\";\n\
                  env(\"DATABASE_URL\");\n#[cfg(test)]\nmod tests {\nlet y = \"NEVER_MADE\"; }";
    assert_eq!(codes::in_source(source).into_iter().collect::<Vec<_>>(), ["LAGGED", "NAME_TAKEN"]);
    let document = "| code | |\n| --- | --- |\n| `ONE_CODE`, `LAGGED` | not `OTHER_CODE` |\n\n| phase | |\n| `RUNNING` | |\n\
                    ## Errors\nalso `STEP_FAILED`";
    assert_eq!(
        codes::in_document(document).into_iter().collect::<Vec<_>>(),
        ["LAGGED", "ONE_CODE", "STEP_FAILED"]
    );
}

#[test]
fn what_is_not_there_is_seen() {
    let workspace = Workspace::read(root());
    let there = "As `tests/promises.rs` has it (`promises::what_is_not_there_is_seen`, `what_is_not_…`).";
    assert_eq!(named(there).len(), 3);
    assert!(unknown(&workspace, &named(there)).is_empty());
    for gone in [
        "`tests/nowhere.rs`",
        "`src/lib.rs`",
        "`promises::what_was_never_there`",
        "`elsewhere::what_is_not_there_is_seen`",
        "`what_is_not_thera_is_seen`",
        "`what_was_never_…`",
        "| promised | told by |\n| --- | --- |\n| all | `short` |",
    ] {
        assert_eq!(unknown(&workspace, &named(gone)).len(), 1, "{gone}");
    }
    for other in ["`max_query_depth`", "`infinibay_vm_frames_refused_total`", "| a | b |\n| `c` | `d_e` |"] {
        assert_eq!(named(other), [], "{other}");
    }
}

#[test]
fn documents_are_taken_apart_into_sections() {
    let document = "# One\nfirst\n\n```sh\n# no heading `a_b_c_d`\n```\n\n## Two\n| promised | told by |\n| --- | --- |\n\
                    | told | `a_b` |\n| not told | |\n| | the same |\n\n**Three.** words\n- **not** a part";
    let sections = sections(document);
    let titles: Vec<_> = sections.iter().map(|section| section.title.as_str()).collect();
    assert_eq!(titles, ["One", "Two", "Three"]);
    assert_eq!(named(&sections[0].text), []);
    assert_eq!(named(&sections[1].text), [Named::Test("a_b".to_owned())]);
    assert_eq!(untold(&sections[1].text), ["| not told | |"]);
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "fn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn one() {}\nfn two() {}\non_both! {\n    /// Says.\n    \
                  async fn three(db: TestDatabase) {\n        fn no() {}\n    }\n}\nasync fn four(db: TestDatabase) {}\n\
                  #[tokio::test(flavor = \"multi_thread\")]\nasync fn five() {}";
    assert_eq!(functions(source), ["one", "three", "five"]);
}
