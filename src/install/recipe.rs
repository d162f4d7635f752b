//! The templates that unattended installs are written from.
//!
//! They say how a system is installed and are files that an operator may replace, so every value is
//! escaped for its format when it is filled in, whatever the template says, and what comes out is
//! looked at before it is used.

mod escape;
mod json;
mod output;

pub(super) use json::from_json;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value};

use super::media::{MediaError, try_every_recipe};

/// Longest template file read, bytes.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// What is written, and so how values are escaped and what must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipe {
    Autoinstall,
    Preseed,
    Kickstart,
    Autounattend,
}

impl Recipe {
    const ALL: [Self; 4] = [Self::Autoinstall, Self::Preseed, Self::Kickstart, Self::Autounattend];

    /// Its place in the templates directory.
    fn name(self) -> &'static str {
        match self {
            Self::Autoinstall => "unattended/ubuntu.yaml",
            Self::Preseed => "unattended/debian.preseed",
            Self::Kickstart => "unattended/fedora.ks",
            Self::Autounattend => "unattended/windows.xml",
        }
    }

    fn built_in(self) -> &'static str {
        match self {
            Self::Autoinstall => include_str!("../../domain-templates/unattended/ubuntu.yaml"),
            Self::Preseed => include_str!("../../domain-templates/unattended/debian.preseed"),
            Self::Kickstart => include_str!("../../domain-templates/unattended/fedora.ks"),
            Self::Autounattend => include_str!("../../domain-templates/unattended/windows.xml"),
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name)
    }
}

/// Why a template gives no installation.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A template file cannot be read.
    #[error("reading the install template {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A template is no template, asks for a value that there is not, or puts a value where the
    /// format cannot carry it.
    #[error("the install template {place}: {source}")]
    Template {
        /// The file, or its name where it is built in.
        place: String,
        /// Why; says the line.
        #[source]
        source: minijinja::Error,
    },
    /// What came out is not what an installer reads.
    #[error("the install template {place} does not give what the installer reads: {reason}")]
    Output {
        /// The file, or its name where it is built in.
        place: String,
        /// What is wrong; says the line that came out, if one is at fault.
        reason: String,
    },
    /// A template cannot be filled in for an ordinary VM.
    #[error("the install template {place} cannot be tried out: {reason}")]
    Trial {
        /// The template's name.
        place: &'static str,
        /// Why.
        reason: String,
    },
}

/// The templates, compiled and tried. Clones share them.
#[derive(Debug, Clone)]
pub struct Recipes {
    environment: Arc<Environment<'static>>,
    /// Where those came from that are not built in.
    replaced: Arc<Vec<(&'static str, PathBuf)>>,
}

impl Recipes {
    /// The built-in templates, replaced by those of the same name in `dir` (such as
    /// `unattended/debian.preseed`). Each is filled in for made-up VMs, so that a mistake is found
    /// here. Reads files: not for an async thread.
    ///
    /// # Errors
    /// A file that is there and cannot be read, compiled or filled in. One that is not there is none.
    pub fn load(dir: Option<&Path>) -> Result<Self, RecipeError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("install".into()));
        environment.set_formatter(write_escaped);
        let mut replaced = Vec::new();
        for recipe in Recipe::ALL {
            let name = recipe.name();
            let path = dir.map(|dir| dir.join(name));
            let source = match &path {
                Some(path) => read_template(path)?,
                None => None,
            };
            let source = match (source, path) {
                (Some(source), Some(path)) => {
                    replaced.push((name, path));
                    source
                }
                _ => recipe.built_in().to_owned(),
            };
            environment
                .add_template_owned(name, source)
                .map_err(|source| RecipeError::Template { place: place(&replaced, name), source })?;
        }
        let recipes = Self { environment: Arc::new(environment), replaced: Arc::new(replaced) };
        try_every_recipe(&recipes)?;
        Ok(recipes)
    }

    /// Fills in a template.
    pub(super) fn render(&self, recipe: Recipe, context: &Value) -> Result<String, RecipeError> {
        let name = recipe.name();
        let fail = |source| RecipeError::Template { place: place(&self.replaced, name), source };
        let text = self.environment.get_template(name).map_err(fail)?.render(context).map_err(fail)?;
        output::check(recipe, &text)
            .map_err(|reason| RecipeError::Output { place: place(&self.replaced, name), reason })?;
        Ok(text)
    }
}

/// What the trial of a template at start came to.
pub(super) fn trial_failed(recipe: Recipe, error: MediaError) -> RecipeError {
    match error {
        MediaError::Recipe(error) => error,
        other => RecipeError::Trial { place: recipe.name(), reason: other.to_string() },
    }
}

fn place(replaced: &[(&'static str, PathBuf)], name: &str) -> String {
    replaced
        .iter()
        .find(|(replaced, _)| *replaced == name)
        .map_or_else(|| name.to_owned(), |(_, path)| path.display().to_string())
}

fn read_template(path: &Path) -> Result<Option<String>, RecipeError> {
    let fail = |source| RecipeError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(fail(e)),
        Ok(found) if !found.is_file() || found.len() > MAX_TEMPLATE_BYTES => {
            Err(fail(io::Error::other(format!("not a file of at most {MAX_TEMPLATE_BYTES} bytes"))))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(fail),
    }
}

/// Writes every value escaped for the template's format, also one that a template calls safe:
/// nothing that is filled in is ever more than a value.
fn write_escaped(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    if value.is_undefined() || value.is_none() {
        let reason = format!("an unset value is written out in {}", state.name());
        return Err(minijinja::Error::new(ErrorKind::UndefinedError, reason));
    }
    let unfit = |reason: String| minijinja::Error::new(ErrorKind::BadSerialization, reason);
    let recipe = Recipe::of_name(state.name())
        .ok_or_else(|| unfit(format!("{} is no install template", state.name())))?;
    let escaped = escape::escape(recipe, value).map_err(unfit)?;
    out.write_str(&escaped).map_err(minijinja::Error::from)
}

#[cfg(test)]
mod tests;
