use super::{RecipeError, Recipes};

fn with(name: &str, template: &str) -> Result<Recipes, RecipeError> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("unattended")).unwrap();
    std::fs::write(dir.path().join("unattended").join(name), template).unwrap();
    Recipes::load(Some(dir.path()))
}

const FILES: [(&str, &str); 4] = [
    ("ubuntu.yaml", include_str!("../../../domain-templates/unattended/ubuntu.yaml")),
    ("debian.preseed", include_str!("../../../domain-templates/unattended/debian.preseed")),
    ("fedora.ks", include_str!("../../../domain-templates/unattended/fedora.ks")),
    ("windows.xml", include_str!("../../../domain-templates/unattended/windows.xml")),
];

#[test]
fn the_built_in_templates_are_right_and_may_be_replaced() {
    Recipes::load(None).unwrap();
    for (name, text) in FILES {
        with(name, text).unwrap();
    }
}

#[test]
fn a_broken_template_is_refused_with_its_file_and_line() {
    for (name, text) in FILES {
        let head = text.lines().count();
        for broken in ["{{ nobody_knows_this }}", "{% if %}", "{{ product_key_of_others.x }}"] {
            let error = with(name, &format!("{text}{broken}\n")).unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, RecipeError::Template { .. }), "{name} {broken}: {said}");
            assert!(said.contains(&format!("/unattended/{name}:{}", head + 1)), "line {}: {said}", head + 1);
        }
    }
}

#[test]
fn a_template_that_gives_something_else_is_refused() {
    for (name, text, line) in [
        ("ubuntu.yaml", "autoinstall: {}\n", 1),
        ("ubuntu.yaml", "#cloud-config\n{# a\nb #}\nautoinstall: {}\n", 4),
        ("debian.preseed", "# fine\nhello {{ locale }}\n", 2),
        ("fedora.ks", "{% if true %}\n%post\n{%- endif %}\n", 2),
        ("windows.xml", "\n<html></html>", 2),
        ("windows.xml", "", 1),
    ] {
        let error = with(name, text).unwrap_err();
        assert!(matches!(error, RecipeError::Output { .. }), "{name}: {error}");
        let place = format!("/unattended/{name}:{line} ");
        assert!(error.to_string().contains(&place), "{place}: {error}");
    }
    let error = with("fedora.ks", &"#".repeat((1 << 20) + 1)).unwrap_err();
    assert!(matches!(error, RecipeError::Read(_)), "{error}");
    assert!(error.to_string().ends_with("/unattended/fedora.ks"), "{error}");
}
