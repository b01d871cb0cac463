//! What the stock CLI finds out about a running shop.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    CliOutput, Info, Profile, Server, Shop, ShopNode, all_partitions, eventually, holds, nats, pricing,
};

const SERVICES: [&str; 5] = ["shop-inventory", "shop-notification", "shop-order", "shop-payment", "shop-user"];
/// A start, and the others' hearing of it.
const SETTLES: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn p1_micro_ls_and_ping_find_every_process() {
    let shop = Shop::shared().await;
    let listed = nats(&shop.server, &["micro", "ls", "--json"]).await;
    let instances = found(&listed.body());
    let mut expected: Vec<(String, String)> =
        SERVICES.iter().map(|name| ((*name).to_owned(), id_of(&shop, name))).collect();
    expected.push(("shop-order".to_owned(), shop.orders[1].id()));
    expected.sort();
    assert_eq!(instances, expected, "{listed:?}");

    let table = nats(&shop.server, &["micro", "ls"]).await;
    let pinged = nats(&shop.server, &["micro", "ping"]).await;
    for (name, id) in &expected {
        assert!(table.stdout.contains(name) && table.stdout.contains(id), "{name} {id}: {table:?}");
        assert!(said(&pinged).contains(name) && said(&pinged).contains(id), "{name} {id}: {pinged:?}");
    }
    let one = nats(&shop.server, &["micro", "ping", "shop-order"]).await;
    assert!(said(&one).contains("shop-order") && !said(&one).contains("shop-user"), "{one:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_r7_micro_info_shows_each_verb_with_its_schemas() {
    let shop = Shop::shared().await;
    let mut infos = Vec::new();
    for node in &shop.orders {
        let info = nats(&shop.server, &["micro", "info", "shop-order", &node.id(), "--json"]).await.body();
        assert_eq!(text(&info["info"]["id"]), node.id(), "{info}");
        infos.push(info["info"].clone());
    }
    for info in &infos {
        assert_eq!(text(&info["version"]), env!("CARGO_PKG_VERSION"), "the service crate's version: {info}");
        let endpoints = info["endpoints"].as_array().expect("endpoints");
        let mut names: Vec<_> = endpoints.iter().map(|endpoint| text(&endpoint["name"])).collect();
        names.sort();
        assert_eq!(names, ["cancel", "get", "place"], "{info}");
        for endpoint in endpoints {
            assert_eq!(text(&endpoint["subject"]), format!("shop.order.*.{}", text(&endpoint["name"])));
            for part in ["request", "reply", "refusal"] {
                let schema: Value = serde_json::from_str(&text(&endpoint["metadata"][part])).expect("a JSON schema");
                assert!(schema["type"].is_string() || schema["oneOf"].is_array(), "{part}: {schema}");
            }
        }
        let place = endpoints.iter().find(|endpoint| endpoint["name"] == json!("place")).expect("place");
        let schema = |part: &str| serde_json::from_str::<Value>(&text(&place["metadata"][part])).expect("JSON");
        assert_eq!(schema("request")["required"], json!(["user", "lines", "card"]), "{place}");
        assert_eq!(schema("reply")["properties"]["total_cents"]["type"], json!("integer"), "{place}");
        assert!(schema("refusal").to_string().contains("out_of_stock"), "{place}");
    }

    let table = nats(&shop.server, &["micro", "info", "shop-order"]).await;
    assert!(table.status.success(), "{table:?}");
    for part in ["shop-order", "place", "shop.order.*.place"] {
        assert!(said(&table).contains(part), "{part}: {table:?}");
    }
}

/// Of each verb a property of what it takes, replies and refuses, or "" if that has none.
const SCHEMAS: [[&str; 5]; 8] = [
    ["shop-inventory", "restock", "qty", "free", ""],
    ["shop-inventory", "get", "", "sold", "sku"],
    ["shop-notification", "notify", "text", "", ""],
    ["shop-notification", "inbox", "", "count", ""],
    ["shop-order", "place", "lines", "total_cents", "out_of_stock"],
    ["shop-order", "get", "", "lines", "order"],
    ["shop-payment", "get", "", "charged_cents", "order"],
    ["shop-user", "register", "email", "name", ""],
];

#[tokio::test(flavor = "multi_thread")]
async fn p1_r7_every_service_announces_schemas() {
    let shop = Shop::shared().await;
    for service in SERVICES {
        let id = id_of(&shop, service);
        let info = nats(&shop.server, &["micro", "info", service, &id, "--json"]).await.body()["info"].clone();
        let endpoints = info["endpoints"].as_array().unwrap_or_else(|| panic!("{service}: {info}"));
        for endpoint in endpoints {
            for part in ["request", "reply", "refusal"] {
                let schema: Value = serde_json::from_str(&text(&endpoint["metadata"][part])).expect("a JSON schema");
                assert!(schema.is_object() || schema.is_boolean(), "{service}, {part}: {endpoint}");
            }
        }
        for [_, verb, request, reply, refusal] in SCHEMAS.iter().filter(|row| row[0] == service) {
            let endpoint = endpoints.iter().find(|endpoint| endpoint["name"] == json!(verb));
            let endpoint = endpoint.unwrap_or_else(|| panic!("{service} has no {verb}: {info}"));
            for (part, property) in [("request", request), ("reply", reply), ("refusal", refusal)] {
                let schema = text(&endpoint["metadata"][part]);
                assert!(schema.contains(property), "{service} {verb}, {part}: {property:?} is not in {schema}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_r4_a_service_without_keys_is_announced_as_one() {
    let server = Server::start(Profile::Plain).await;
    let node = pricing(&server).await;
    let info = nats(&server, &["micro", "info", "shop-pricing", node.id(), "--json"]).await.body()["info"].clone();
    assert_eq!((&info["id"], &info["metadata"]["greenroom.kind"]), (&json!(node.id()), &json!("service")), "{info}");
    let endpoint = &info["endpoints"][0];
    assert_eq!((&endpoint["name"], &endpoint["subject"]), (&json!("quote"), &json!("shop.pricing.quote")), "{info}");
    assert_eq!(endpoint["queue_group"], json!("pricing"), "{info}");
    let asked = text(&endpoint["metadata"]["request"]);
    assert!(asked.contains("sku") && asked.contains("qty"), "{info}");

    for body in [r#"{"sku":"tea","qty":1}"#, r#"{"sku":"fax","qty":1}"#, "not JSON"] {
        nats(&server, &["req", "shop.pricing.quote", body]).await;
    }
    let stats = nats(&server, &["micro", "stats", "shop-pricing", "--json"]).await.body();
    let endpoint = stats.get(0).unwrap_or(&stats)["endpoints"][0].clone();
    // The refusal is an answer.
    assert_eq!((&endpoint["num_requests"], &endpoint["num_errors"]), (&json!(3), &json!(1)), "{stats}");
    let table = nats(&server, &["micro", "info", "shop-pricing"]).await;
    assert!(said(&table).contains("shop.pricing.quote"), "{table:?}");
    node.drain().await.expect("drained");
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_micro_stats_move_with_calls() {
    // Nobody else asks here, so the numbers are known.
    let shop = Shop::open().await;
    let before = counts(&shop).await;
    for n in 0..12 {
        // An order that does not exist: the actor's own no is an answer, and not an error of the service.
        shop.req(&format!("shop.order.stats-{n}.get"), "").await;
    }
    for n in 0..3 {
        shop.req(&format!("shop.order.stats-{n}.place"), "not JSON").await;
    }
    let after = counts(&shop).await;
    assert_eq!((after.get_requests, after.get_errors), (before.get_requests + 12, 0), "{before:?} {after:?}");
    assert_eq!(after.place_errors, before.place_errors + 3, "{before:?} {after:?}");
    assert!(after.get_nanos > before.get_nanos, "{before:?} {after:?}");

    let table = nats(&shop.server, &["micro", "stats", "shop-order"]).await;
    assert!(table.status.success(), "{table:?}");
    for node in &shop.orders {
        assert!(said(&table).contains(&node.id()), "{table:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_the_answers_are_what_the_clis_own_schemas_demand() {
    let shop = Shop::shared().await;
    let dir = tempfile::tempdir().expect("a directory");
    for (verb, kind) in [("PING", "ping"), ("INFO", "info"), ("STATS", "stats")] {
        let answer = nats(&shop.server, &["req", &format!("$SRV.{verb}.shop-payment"), ""]).await;
        let kind = format!("io.nats.micro.v1.{kind}_response");
        assert_eq!(answer.reply()["type"], json!(kind));
        let file = dir.path().join(verb);
        std::fs::write(&file, answer.stdout.trim()).expect("it can be written");
        let file = file.to_string_lossy();
        let checked = nats(&shop.server, &["schema", "validate", &kind, &file]).await;
        assert!(checked.status.success(), "{checked:?}");

        // The check itself can fail.
        std::fs::write(&*file, r#"{"type":"io.nats.micro.v1.other"}"#).expect("it can be written");
        let checked = nats(&shop.server, &["schema", "validate", &kind, &file]).await;
        assert!(!checked.status.success() || said(&checked).contains("error"), "{checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_any_node_lists_nodes_hosts_and_claims() {
    let shop = Shop::shared().await;
    let info = eventually(SETTLES, "every partition is claimed", async || {
        let info = Info::of(&shop.server, "any").await;
        let all = SERVICES.iter().all(|service| info.owned(actor(service)) == all_partitions());
        if all { Ok(info) } else { Err(info.0) }
    })
    .await;
    assert_eq!((&info.0["app"], &info.0["partitions"]), (&json!("shop"), &json!(64)), "{info:?}");
    assert_eq!(info.nodes().len(), 6, "{info:?}");
    for service in SERVICES {
        let id = id_of(&shop, service);
        let node = info.node(&id).unwrap_or_else(|| panic!("{id} is not listed: {info:?}"));
        assert!(node["hosts"].get(actor(service)).is_some(), "{node}");
        assert_eq!((&node["live"], &node["draining"]), (&json!(true), &json!(false)), "{node}");
    }
    // Both order nodes have a share.
    for node in &shop.orders {
        assert!(!info.owned_by("order", &node.id()).is_empty(), "{info:?}");
    }
    // A node can be asked by its name, too.
    let id = shop.payment.id();
    assert_eq!(Info::of(&shop.server, &id).await.0["node"], json!(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_drained_node_disappears() {
    let server = Server::start(Profile::Shop).await;
    let args = ["--lease", "30s"];
    let (stays, mut leaves) =
        tokio::join!(ShopNode::spawn(&server, "user", &args), ShopNode::spawn(&server, "user", &args));
    let (stays, gone) = (stays.id(), leaves.id());
    assert!(leaves.terminate().await.success(), "{}", leaves.log());

    // At once: an orderly leave needs no lease to run out.
    let listed = nats(&server, &["micro", "ls", "--json"]).await.body();
    assert_eq!(found(&listed), [("shop-user".to_owned(), stays.clone())], "{listed}");
    eventually(Duration::from_secs(10), "only one node is listed, and owns all", async || {
        let info = Info::of(&server, "any").await;
        let alone = info.node(&gone).is_none() && info.owned_by("user", &stays) == all_partitions();
        holds(alone, || info.0.to_string())
    })
    .await;
}

#[derive(Debug)]
struct Counts {
    get_requests: u64,
    get_errors: u64,
    get_nanos: u64,
    place_errors: u64,
}

/// Over both nodes that host orders.
async fn counts(shop: &Shop) -> Counts {
    let output = nats(&shop.server, &["micro", "stats", "shop-order", "--json"]).await;
    let stats = output.body();
    let stats = stats.as_array().cloned().unwrap_or_else(|| vec![stats.clone()]);
    assert_eq!(stats.len(), 2, "{output:?}");
    let sum = |verb: &str, count: &str| {
        let endpoints = stats.iter().filter_map(|stats| stats["endpoints"].as_array()).flatten();
        endpoints
            .filter(|endpoint| endpoint["name"] == json!(verb))
            .filter_map(|endpoint| endpoint[count].as_u64())
            .sum()
    };
    Counts {
        get_requests: sum("get", "num_requests"),
        get_errors: sum("get", "num_errors"),
        get_nanos: sum("get", "processing_time"),
        place_errors: sum("place", "num_errors"),
    }
}

/// Name and id of each instance in `nats micro ls --json`, sorted.
fn found(listed: &Value) -> Vec<(String, String)> {
    let mut found: Vec<_> = listed
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {listed}"))
        .iter()
        .map(|instance| (text(&instance["name"]), text(&instance["id"])))
        .collect();
    found.sort();
    found
}

fn id_of(shop: &Shop, service: &str) -> String {
    match actor(service) {
        "user" => shop.user.id(),
        "order" => shop.orders[0].id(),
        "payment" => shop.payment.id(),
        "inventory" => shop.inventory.id(),
        _ => shop.notification.id(),
    }
}

fn actor(service: &str) -> &str {
    service.trim_start_matches("shop-")
}

/// Everything that the CLI printed: some of its commands print to the one, some to the other.
fn said(output: &CliOutput) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
