//! The templates that unattended installs are written from.
//!
//! They say how a system is installed and are files that an operator may replace, so every value is
//! escaped for its format when it is filled in, whatever the template says, and what comes out is
//! looked at before it is used.

mod escape;
mod json;
mod output;

pub(super) use json::from_json;

use std::{path::Path, sync::Arc};

use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value};

use self::output::Fault;
use super::media::{MediaError, try_every_recipe};
use crate::template::{Place, ReadError, TemplateText};

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
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A template is no template, asks for a value that there is not, or puts a value where the
    /// format cannot carry it.
    #[error("the install template {place}")]
    Template {
        /// Where.
        place: Place,
        /// Why.
        #[source]
        source: minijinja::Error,
    },
    /// What came out is not what an installer reads.
    #[error("the install template {place} does not give what the installer reads: {reason}")]
    Output {
        /// Where, as far as what came out tells.
        place: Place,
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
    texts: Arc<[TemplateText]>,
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
        let mut texts = Vec::new();
        for recipe in Recipe::ALL {
            let text = TemplateText::load(dir, recipe.name(), recipe.built_in())?;
            environment
                .add_template_owned(recipe.name(), text.text.clone())
                .map_err(|source| RecipeError::Template { place: text.at(source.line()), source })?;
            texts.push(text);
        }
        let recipes = Self { environment: Arc::new(environment), texts: texts.into() };
        try_every_recipe(&recipes)?;
        Ok(recipes)
    }

    /// Fills in a template.
    pub(super) fn render(&self, recipe: Recipe, context: &Value) -> Result<String, RecipeError> {
        let fail = |source: minijinja::Error| {
            // One may include another.
            let of = source.name().and_then(Recipe::of_name).unwrap_or(recipe);
            RecipeError::Template { place: self.place(of, |text| text.at(source.line())), source }
        };
        let template = self.environment.get_template(recipe.name()).map_err(fail)?;
        let output = template.render(context).map_err(fail)?;
        output::check(recipe, &output).map_err(|Fault { line, reason }| {
            let place = self.place(recipe, |text| match line {
                Some(line) => text.gave(&output, line),
                None => text.mentions(&["autoinstall:", "<unattend"]),
            });
            RecipeError::Output { place, reason: format!("{reason} (of what came out)") }
        })?;
        Ok(output)
    }

    fn place(&self, recipe: Recipe, within: impl FnOnce(&TemplateText) -> Place) -> Place {
        let name = recipe.name();
        let text = self.texts.iter().find(|text| text.name == name);
        text.map_or_else(|| Place { file: name.to_owned(), line: None }, within)
    }
}

/// What the trial of a template at start came to.
pub(super) fn trial_failed(recipe: Recipe, error: MediaError) -> RecipeError {
    match error {
        MediaError::Recipe(error) => error,
        other => RecipeError::Trial { place: recipe.name(), reason: other.to_string() },
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
