//! The tests that there are, as the workspace's sources have them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A test function.
#[derive(Debug, PartialEq, Eq)]
pub struct Test {
    /// Relative to the checkout.
    pub file: PathBuf,
    pub name: String,
}

/// What the names in a document are looked up in.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    pub tests: Vec<Test>,
}

impl Workspace {
    pub fn read(root: &Path) -> Self {
        let mut sources = Vec::new();
        for folder in ["src", "tests", "crates"] {
            collect(&root.join(folder), &mut sources);
        }
        let mut tests = Vec::new();
        for source in sources {
            let file = source.strip_prefix(root).expect("below the checkout").to_owned();
            let text = fs::read_to_string(&source).expect("a source file");
            tests.extend(functions(&text).into_iter().map(|name| Test { file: file.clone(), name }));
        }
        Self { root: root.to_owned(), tests }
    }

    /// Whether `name` is a file with tests, or one of a program's that is run as a test.
    pub fn has_file(&self, name: &str) -> bool {
        let is_program = name.ends_with(".sh") && self.root.join(name).is_file();
        is_program || self.tests.iter().any(|test| test.file == Path::new(name))
    }

    /// Whether `name` is a test: the function's name, after as many of the modules that it is in as are
    /// needed (`story_limits::fn`, `seal::tests::fn`); one that ends in `…` is a beginning.
    pub fn has_test(&self, name: &str) -> bool {
        let mut modules: Vec<_> = name.split("::").collect();
        let function = modules.pop().unwrap_or_default();
        // Nearly all of them are in one that is called so, and it may or may not have a file.
        modules.retain(|module| *module != "tests");
        self.tests.iter().any(|test| {
            let is_it = match function.strip_suffix('…') {
                Some(beginning) => beginning.len() > 3 && test.name.starts_with(beginning),
                None => test.name == function,
            };
            is_it && modules_of(&test.file).ends_with(&modules)
        })
    }
}

fn modules_of(file: &Path) -> Vec<&str> {
    let parts = file.iter().filter_map(|part| part.to_str()).map(|part| part.trim_end_matches(".rs"));
    parts.filter(|part| !["tests", "src"].contains(part)).collect()
}

/// The sources below a folder.
pub fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("fuzz") {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

/// The names of a source's test functions.
pub fn functions(source: &str) -> Vec<String> {
    let (mut names, mut marked, mut on_both) = (Vec::new(), false, false);
    for line in source.lines() {
        if line.starts_with('}') {
            on_both = false;
        }
        let code = line.trim_start();
        if code.starts_with("on_both! {") {
            on_both = true;
        } else if let Some(attribute) = code.strip_prefix("#[") {
            marked |= attribute.starts_with("test]") || attribute.starts_with("tokio::test");
        } else if let Some((before, after)) = code.split_once("fn ")
            && ["", "async "].contains(&before)
        {
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // What `on_both!` takes is run against either database; what else is in its braces is not its.
            if marked || (on_both && after[name.len()..].starts_with("(db: TestDatabase)")) {
                names.push(name);
            }
            marked = false;
        } else if !code.starts_with("//") && !code.is_empty() && !code.ends_with(")]") {
            marked = false;
        }
    }
    names
}
