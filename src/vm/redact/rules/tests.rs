use std::{borrow::Cow, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::vm::Redactor;

fn redactor(names: &[&str], flags: &[&str], patterns: &[&str]) -> Redactor {
    Redactor::new(names, flags, patterns).unwrap()
}

#[test]
fn own_rules_hide_what_the_built_in_ones_do_not() {
    let redactor = redactor(
        &["pin", "--access-code", "DB_KEY"],
        &["vaultctl -k", "vaultctl --unseal", "bank -pin"],
        &[r"AKIA[0-9A-Z]{8}", r"(?i)session/([0-9a-f]+)", r"x*", r"(never)?here"],
    );
    let wrong: Vec<_> = [
        ("tool pin=s3cret y", "tool pin=*** y"),
        ("tool PIN: s3cret y", "tool PIN: *** y"),
        ("tool --pin s3cret y", "tool --pin *** y"),
        ("tool -pin 's3 cret' y", "tool -pin *** y"),
        ("tool --pin=\"s3 cret\" y", "tool --pin=*** y"),
        ("tool.bin /pin:s3cret", "tool.bin /pin:***"),
        ("set DB_KEY=s3cret; run", "set DB_KEY=***; run"),
        ("y --access-code s3cret", "y --access-code ***"),
        (r#"curl -d '{"pin": "s3cret"}' h"#, r#"curl -d '{"pin": ***"#),
        ("curl 'http://h/?pin=s3cret&a=1'", "curl 'http://h/?pin=***&a=1'"),
        ("tool --my-pin=1 db.pin=2", "tool --my-pin=*** db.pin=***"),
        // Only the whole name.
        ("tool --pinned=yes spin=1 my_pin=2", "tool --pinned=yes spin=1 my_pin=2"),
        ("tool pin 5", "tool pin 5"),
        ("vaultctl -k s3cret get", "vaultctl -k *** get"),
        ("/usr/bin/vaultctl -ks3cret -k 'o ther'", "/usr/bin/vaultctl -k*** -k ***"),
        ("sudo vaultctl put --unseal=s3cret", "sudo vaultctl put --unseal=***"),
        ("sh -c \"vaultctl --unseal s3cret\"", "sh -c \"vaultctl --unseal ***"),
        ("curl -k https://h", "curl -k https://h"),
        ("vaultctl --unsealed y", "vaultctl --unsealed y"),
        ("bank -pin 4711 -pinned 1", "bank -pin *** -pinned 1"),
        ("use AKIA0123ABCD now", "use *** now"),
        ("GET /SESSION/00ff?a=1", "GET /SESSION/***?a=1"),
        ("it is here", "it is here"),
        ("it is neverhere", "it is ***here"),
        ("xx stays nothing", "*** stays nothing"),
        // The built-in rules hold as before.
        ("tool --password s3cret pin=4711", "tool --password *** pin=***"),
        ("", ""),
    ]
    .into_iter()
    .map(|(line, kept)| (line, redactor.hide(line), kept))
    .filter(|(_, became, kept)| became != kept)
    .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_holds_no_secret_is_not_copied() {
    let redactor = redactor(&["pin"], &["vaultctl -k"], &["AKIA[0-9]+"]);
    for line in ["uname -a", "tool pin=***", "vaultctl -k ***", ""] {
        assert!(matches!(redactor.hide(line), Cow::Borrowed(_)), "{line}");
        assert!(matches!(Redactor::default().hide(line), Cow::Borrowed(_)), "{line}");
    }
}

#[test]
fn rules_that_cannot_be_used_are_told_by_number_and_not_repeated() {
    let long = "a".repeat(65);
    for bad in ["", "--", "a b", "ä", "a=b", &long] {
        let error = Rules::new(&["good", bad], &[], &[]).unwrap_err();
        assert_eq!(error, RedactionError::Name { number: 2 }, "{bad}");
    }
    for bad in ["", "tool", "-k", "tool k", "tool ---k", "tool -", "tool --", "tool -k v", "-t -k", "a/b -k"]
    {
        let error = Rules::new(&[], &[bad], &[]).unwrap_err();
        assert_eq!(error, RedactionError::Flag { number: 1 }, "{bad}");
    }
    let long = "a".repeat(1025);
    for (bad, word) in [
        ("s3cret(", "unclosed group"),
        ("s3cret[z-a]", "invalid"),
        (r"s3cret(?=x)", "look-around"),
        (r"s3cret\w{500}{500}", "bytes once compiled"),
        (&long, "characters"),
    ] {
        let error = Rules::new(&[], &[], &["fine", bad]).unwrap_err();
        assert!(matches!(error, RedactionError::Pattern { number: 2, .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.contains(word) && !words.contains("s3cret"), "{words}");
    }
    let many = vec!["a"; 65];
    for error in [Rules::new(&many, &[], &[]), Rules::new(&[], &[], &many)] {
        assert_eq!(error.unwrap_err(), RedactionError::TooMany);
    }
}

static NAMES_AND_FLAGS: LazyLock<Rules> =
    LazyLock::new(|| Rules::new(&["pin"], &["vaultctl -k"], &[]).unwrap());
static PATTERNS: LazyLock<Rules> =
    LazyLock::new(|| Rules::new(&[], &[], &["AKIA[0-9]{4}", "ab(c+)", "bb"]).unwrap());

proptest! {
    #[test]
    fn hiding_twice_is_hiding_once(
        line in "([a-z]{1,4}|--pin|pin|vaultctl|-k|[ =:\"';|&(,\\\\{}-]|é){0,24}",
        text in "([a-c]{1,4}|AKIA[0-9]{1,4}|[ =*é]){0,24}",
    ) {
        for (rules, line) in [(&*NAMES_AND_FLAGS, line), (&*PATTERNS, text)] {
            let once = rules.hide(&line).unwrap_or_else(|| line.clone());
            let twice = rules.hide(&once).unwrap_or_else(|| once.clone());
            prop_assert_eq!(twice, once, "{}", line);
        }
    }

    #[test]
    fn no_pattern_makes_a_line_grow_beyond_its_bound(
        line in "\\PC{0,80}",
        patterns in prop::collection::vec("(\\.|[a-z]|\\\\w|\\(\\\\W\\)|\\\\b|[a-z]\\*|é\\?){1,3}", 0..6),
    ) {
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let rules = Rules::new(&[], &[], &patterns).unwrap();
        let hidden = rules.hide(&line).unwrap_or_else(|| line.clone());
        prop_assert!(hidden.len() <= 2 * line.len() + HIDDEN.len(), "{} became {}", line, hidden);
    }

    #[test]
    fn a_named_secret_never_stays(
        secret in "[A-Z0-9é]{8,20}",
        form in prop::sample::select(vec![
            "x --pin {} y", "PIN={}", "x -d '{\"pin\":\"{}\"}'", "é pin: {}", "vaultctl x -k {}", "vaultctl -k{}",
        ]),
    ) {
        let line = form.replace("{}", &secret);
        let kept = NAMES_AND_FLAGS.hide(&line).unwrap_or(line);
        prop_assert!(!kept.contains(&secret), "{}", kept);
    }
}
