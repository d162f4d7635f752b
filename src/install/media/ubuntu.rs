//! Ubuntu's live server installer: autoinstall in cloud-init's NoCloud files.

use minijinja::{Value, context};
use serde_json::json;

use super::{InstallAgent, InstallFamily, InstallInputs, InstallMedia, MediaError, file, linux_files};
use crate::install::{
    check::keyboard_parts,
    iso::LABEL,
    recipe::{Recipe, Recipes, from_json},
    seed::{default_hostname, netplan, refuse_windows_settings, user_data},
};

pub(super) fn media(
    recipes: &Recipes,
    inputs: &InstallInputs<'_>,
    agent: InstallAgent<'_>,
) -> Result<InstallMedia, MediaError> {
    refuse_windows_settings(&inputs.spec.unattended)?;
    let answers = recipes.render(Recipe::Autoinstall, &context(inputs))?;
    let mut files = vec![
        file("user-data", answers),
        file("meta-data", format!("{}\n", json!({ "instance-id": inputs.id.to_string() }))),
    ];
    files.extend(linux_files(InstallFamily::Ubuntu, "cloud-init", inputs, agent)?);
    Ok(InstallMedia {
        label: Some(LABEL),
        files,
        kernel_args: vec!["autoinstall".to_owned(), "console=ttyS0".to_owned()],
        initrd_append: None,
    })
}

fn context(inputs: &InstallInputs<'_>) -> Value {
    let (spec, settings) = (inputs.spec, &inputs.spec.unattended);
    let (layout, variant) = keyboard_parts(settings.keyboard.as_deref().unwrap_or("us"));
    let hostname = settings.hostname.clone().unwrap_or_else(|| default_hostname(&spec.name));
    let mut first_boot = user_data(spec, &hostname, true);
    if let Some(first_boot) = first_boot.as_object_mut() {
        // The installer does these: the medium is gone by then, and the keyboard is set up.
        for done in ["bootcmd", "keyboard", "locale"] {
            first_boot.remove(done);
        }
    }
    context! {
        locale => settings.locale.as_deref().unwrap_or("en_US.UTF-8"),
        keyboard => context! { layout, variant },
        network => from_json(&netplan(&spec.network, inputs.mac)),
        mirror => inputs.mirror,
        password_login => settings.password_hash.is_some(),
        user_data => from_json(&first_boot),
    }
}
