//! Lists of VMs as people look through them: by a part of the name, by phase, by owner, in several orders,
//! page by page. Pages of one order follow each other without a hole, also where names are alike and
//! others come meanwhile; and what is filtered never shows what may not be seen.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{daemon::Client, trial::Trial};

const SOON: Duration = Duration::from_secs(60);
const LIST: &str = "query($first: Int!, $after: String, $filter: VmFilter, $sort: VmSort!) {
    vms(first: $first, after: $after, filter: $filter, sort: $sort) {
        nodes { name phase ownerId } pageInfo { hasNextPage endCursor } } }";

/// The names on all pages of this size.
async fn names(client: &Client, filter: Value, sort: &str, first: usize) -> Vec<String> {
    let (mut seen, mut after) = (Vec::new(), Value::Null);
    loop {
        let variables = json!({ "first": first, "after": after, "filter": filter, "sort": sort });
        let mut page = client.ask(LIST, variables).await["vms"].take();
        let nodes = page["nodes"].as_array().unwrap();
        assert!(nodes.len() <= first);
        seen.extend(nodes.iter().map(|vm| vm["name"].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            return seen;
        }
        after = page["pageInfo"]["endCursor"].take();
        assert!(seen.len() < 100, "the pages go round: {seen:?}");
    }
}

on_both! {
    async fn people_find_their_vms(db: TestDatabase) {
        let mut trial = Trial::start(&db).await;
        let eve = trial.home.between(&mut trial.daemon, |home| home.user("eve", &[]));
        let (admin, eve) = (trial.daemon.client(&trial.token), trial.daemon.client(&eve));
        // In an order that is neither that of the names nor that of the ids.
        let made = ["web-2", "Web-1", "db_1", "DB_2", "a.b", "web"];
        for name in made {
            let mut request = trial.request(name);
            request["id"] = json!(uuid::Uuid::new_v4());
            let (vm, _) = if name == "a.b" { &eve } else { &admin }.create(request).await;
            admin.phase_is(&vm, "INSTALLING", SOON).await;
            if name == "db_1" {
                admin.change("stopVm", &vm).await;
                admin.phase_is(&vm, "STOPPED", SOON).await;
            }
        }
        let sorted = ["a.b", "db_1", "DB_2", "web", "Web-1", "web-2"];
        let backwards: Vec<_> = made.into_iter().rev().collect();
        for first in [1, 2, 6, 200] {
            assert_eq!(names(&admin, Value::Null, "NAME", first).await, sorted, "by {first}");
            assert_eq!(names(&admin, Value::Null, "OLDEST", first).await, made, "by {first}");
            assert_eq!(names(&admin, Value::Null, "NEWEST", first).await, backwards, "by {first}");
            let mut by_id = names(&admin, Value::Null, "ID", first).await;
            by_id.sort_unstable_by_key(|name| name.to_lowercase());
            assert_eq!(by_id, sorted, "by {first}");
        }
        // A filter is a text, and no pattern.
        for (name, found) in [
            ("WEB", &["web", "Web-1", "web-2"][..]),
            ("_", &["db_1", "DB_2"]),
            ("%", &[]),
            (".", &["a.b"]),
            ("' OR 1=1 --", &[]),
            ("ö", &[]),
        ] {
            let filter = json!({ "name": name });
            assert_eq!(names(&admin, filter, "NAME", 2).await, found, "{name}");
        }
        assert_eq!(names(&admin, json!({ "phase": "STOPPED" }), "NAME", 9).await, ["db_1"]);
        assert_eq!(names(&admin, json!({ "phase": "STOPPED", "name": "web" }), "NAME", 9).await, [""; 0]);
        assert_eq!(names(&admin, json!({ "phase": "INSTALLING", "name": "db" }), "NAME", 9).await, ["DB_2"]);
        assert_eq!(names(&admin, json!({ "connectivity": "NEVER_SEEN" }), "NEWEST", 4).await, backwards);
        assert_eq!(names(&admin, json!({ "connectivity": "ONLINE" }), "NEWEST", 4).await, [""; 0]);
        let owner = eve.ask("{ me { id } }", json!({})).await["me"]["id"].take();
        assert_eq!(names(&admin, json!({ "ownerId": owner }), "ID", 9).await, ["a.b"]);
        for sort in ["ID", "NAME", "NEWEST", "OLDEST"] {
            assert_eq!(names(&eve, Value::Null, sort, 1).await, ["a.b"], "{sort}");
            assert_eq!(names(&eve, json!({ "name": "web" }), sort, 1).await, [""; 0], "{sort}");
        }

        // A page goes on where it ended, whatever was made and renamed before that place.
        let ask = async |after: Value| {
            let variables = json!({ "first": 2, "after": after, "filter": null, "sort": "NAME" });
            admin.ask(LIST, variables).await["vms"].take()
        };
        let first = ask(Value::Null).await;
        admin.create(trial.request("aa")).await;
        let second = ask(first["pageInfo"]["endCursor"].clone()).await;
        assert_eq!(second["nodes"][0]["name"], "DB_2", "{second}");
        trial.daemon.stop();
    }

    async fn a_filter_that_makes_no_sense_is_refused(db: TestDatabase) {
        let trial = Trial::start(&db).await;
        let (vm, _) = trial.client.create(trial.request("one")).await;
        let time = format!("{vm}.t1700000000000000");
        let name = format!("{vm}.none");
        let filter = |name: String| json!({ "first": 1, "filter": { "name": name }, "sort": "ID" });
        let cursor = |sort: &str, after: &str| json!({ "first": 1, "after": after, "sort": sort });
        for (variables, field) in [
            (filter(String::new()), "filter.name"),
            (filter("a".repeat(64)), "filter.name"),
            (filter("a".repeat(500_000)), "filter.name"),
            (filter("a\0b".to_owned()), "filter.name"),
            (filter("\u{1b}[2J".to_owned()), "filter.name"),
            (cursor("ID", "x"), "after"),
            (cursor("ID", &name), "after"),
            (cursor("NAME", &vm), "after"),
            (cursor("NAME", &time), "after"),
            (cursor("NAME", &format!("{vm}.na\0")), "after"),
            (cursor("NEWEST", &vm), "after"),
            (cursor("OLDEST", &format!("{vm}.t{}", "9".repeat(30))), "after"),
            (cursor("NEWEST", &format!("{vm}.t{}", i64::MIN)), "after"),
            (cursor("NEWEST", &format!("{vm}.t{}", i64::MAX)), "after"),
            (cursor("OLDEST", &"9".repeat(500_000)), "after"),
        ] {
            let answer = trial.client.send(LIST, variables).await;
            let told = &answer["errors"][0]["extensions"];
            assert_eq!((&told["code"], &told["field"]), (&json!("INVALID_INPUT"), &json!(field)), "{answer}");
        }
        // Far off, but a time.
        let far = cursor("NEWEST", &format!("{vm}.t253402300799999999"));
        assert_eq!(trial.client.ask(LIST, far).await["vms"]["nodes"].as_array().unwrap().len(), 1);
        for (name, value) in [("phase", json!("EXPLODED")), ("connectivity", json!(7)), ("nonsense", json!(1))] {
            let variables = json!({ "first": 1, "filter": { name: value }, "sort": "ID" });
            assert_eq!(trial.client.refused(LIST, variables).await, "INVALID_QUERY", "{name}");
        }
        let sort = json!({ "first": 1, "sort": "ID; DROP TABLE vms" });
        assert_eq!(trial.client.refused(LIST, sort).await, "INVALID_QUERY");
        trial.daemon.stop();
    }
}
