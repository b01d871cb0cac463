//! The shop as a person with the stock `nats` CLI sees it: five services, six processes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CliOutput, Listener, Profile, Server, Shop, eventually, holds, nats, pricing, shell, story};

/// An answer "at once", with the start of the CLI's process and a busy machine allowed for. A call
/// that waits for its budget takes 5 s.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Ids and the tokens that stand for them in a subject: plain, dots and spaces, other scripts.
const KEYS: [(&str, &str); 4] =
    [("k-1", "k-1"), ("k.1 b", "k=2E1=20b"), ("日本", "=E6=97=A5=E6=9C=AC"), ("ñandú=*>", "=C3=B1and=C3=BA=3D=2A=3E")];

#[tokio::test(flavor = "multi_thread")]
async fn c3_s1_an_order_is_placed_and_shown_whatever_its_key() {
    let shop = Shop::shared().await;
    for (id, token) in KEYS {
        let user =
            shop.req(&format!("shop.user.{token}.register"), r#"{"name":"Ada","email":"ada@example.com"}"#).await;
        assert_eq!(user.reply(), json!({ "id": id, "name": "Ada", "email": "ada@example.com" }));
        assert_eq!(user.header("Content-Type").as_deref(), Some("application/json"), "{user:?}");

        let restocked = shop.req(&format!("shop.inventory.{token}.restock"), r#"{"qty":100}"#).await.reply();
        assert_eq!((&restocked["sku"], &restocked["free"]), (&json!(id), &json!(100)), "{restocked}");

        let place = json!({ "user": id, "lines": [{ "sku": id, "qty": 2 }], "card": "tok_ok" }).to_string();
        let placed = shop.req(&format!("shop.order.{token}.place"), &place).await.reply();
        assert_eq!(placed, json!({ "order": id, "total_cents": 200, "status": "confirmed" }));
        let again = shop.req(&format!("shop.order.{token}.place"), &place).await.reply();
        assert_eq!(again, placed, "the same order again is answered as the first time");

        let order = shop.req(&format!("shop.order.{token}.get"), "").await.reply();
        assert_eq!(order["order"], json!(id), "{order}");
        assert_eq!(order["lines"], json!([{ "sku": id, "qty": 2 }]), "{order}");
        let payment = shop.req(&format!("shop.payment.{token}.get"), "").await.reply();
        assert_eq!(payment, json!({ "order": id, "charged_cents": 200, "refunded_cents": 0 }));
        let stock = shop.req(&format!("shop.inventory.{token}.get"), "").await.reply();
        assert_eq!((&stock["free"], &stock["sold"], &stock["reserved"]), (&json!(98), &json!(2), &json!(0)), "{stock}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_e1_sub_shows_what_happens_while_orders_are_placed() {
    let shop = Shop::shared().await;
    shop.register("sub-u").await;
    shop.restock("sub-tea", 10).await;
    let mut subjects = Listener::start(&shop.server, "shop.on.>", &["--subjects-only"]).await;
    let mut stock = Listener::start(&shop.server, "shop.on.inventory.>", &["--subjects-only"]).await;
    let mut money = Listener::start(&shop.server, "shop.on.payment.>", &["--subjects-only"]).await;
    let mut bodies = Listener::start(&shop.server, "shop.on.order.confirmed.*", &["--raw"]).await;

    let place = r#"{"user":"sub-u","lines":[{"sku":"sub-tea","qty":3}],"card":"tok_ok"}"#;
    shop.req("shop.order.sub=2E1.place", place).await.reply();
    // In the order in which they happen to the order.
    for event in ["order.placed.sub=2E1", "order.confirmed.sub=2E1", "order.shipped.sub=2E1"] {
        subjects.line(event, |line| line.contains(&format!("shop.on.{event}"))).await;
    }
    // Those of its callees: goods were set aside and left the house, and the card was charged.
    for event in ["inventory.reserved.sub-tea", "inventory.shipped.sub-tea"] {
        stock.line(event, |line| line.contains(&format!("shop.on.{event}"))).await;
    }
    money.line("the charge", |line| line.contains("shop.on.payment.charged.sub=2E1")).await;
    let body = bodies.line("the event", |line| line.contains("sub-u")).await;
    let body: Value = serde_json::from_str(&body).expect("an event is JSON");
    assert!(body.to_string().contains(r#""total_cents":300"#), "{body}");
}

/// One order from its journal, as the CLI shows it: by subject, and record by record.
#[tokio::test(flavor = "multi_thread")]
async fn e1_c3_the_stream_tells_the_story_of_an_order() {
    let shop = Shop::shared().await;
    shop.register("story-u").await;
    shop.restock("story-tea", 1).await;
    let place = r#"{"user":"story-u","lines":[{"sku":"story-tea","qty":1}],"card":"tok_ok"}"#;
    let declined = place.replace("tok_ok", "tok_declined");
    shop.req("shop.order.story.place", &declined).await;
    shop.req("shop.order.story.place", place).await.reply();
    let expected = ["placed", "rejected", "placed", "confirmed", "shipped"];

    // It pages, and so wants a terminal.
    let view = "nats stream view shop-evt-order --subject shop.evt.order.story";
    let view = format!("script -qec '\"$NATS_PROGRAM\" {}' /dev/null", view.trim_start_matches("nats "));
    let shown = shell(&shop.server, &view).await;
    let told = shown.stdout.lines().filter_map(|line| line.trim().strip_prefix("Greenroom-Events: "));
    assert_eq!(told.collect::<Vec<_>>(), expected, "{shown:?}");
    assert!(!shown.stdout.contains("tok_"), "a card is not kept: {shown:?}");

    let last = nats(&shop.server, &["stream", "get", "shop-evt-order", "-S", "shop.evt.order.story", "-j"]).await;
    assert!(last.status.success() && last.stdout.contains(r#""shop.evt.order.story""#), "{last:?}");
    assert_eq!(story(&shop.server, "order", "story").await, expected);
    assert_eq!(story(&shop.server, "payment", "story").await, ["charged"]);
    let goods = ["restocked", "reserved", "released", "reserved", "shipped"];
    assert_eq!(story(&shop.server, "inventory", "story-tea").await, goods);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_tell_takes_pub_and_req() {
    let shop = Shop::shared().await;
    let published = nats(&shop.server, &["pub", "shop.notification.tell-u.notify", r#"{"text":"by pub"}"#]).await;
    assert!(published.status.success(), "{published:?}");
    let told = shop.req("shop.notification.tell-u.notify", r#"{"text":"by req"}"#).await;
    assert_eq!(told.reply(), json!({}), "a tell is answered when it is admitted");
    let texts = eventually(Duration::from_secs(20), "both messages are in the inbox", async || {
        let inbox = shop.req("shop.notification.tell-u.inbox", "").await.reply();
        holds(inbox["count"] == json!(2), || inbox.to_string()).map(|()| inbox.to_string())
    })
    .await;
    assert!(texts.contains("by pub") && texts.contains("by req"), "{texts}");

    let bad = shop.req("shop.notification.tell-u.notify", r#"{"txet":"by req"}"#).await;
    mistake(&bad, 400, "bad_request", &["text: string"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_r7_a_mistake_is_answered_at_once_with_what_was_expected() {
    let shop = Shop::shared().await;
    let place = "shop.order.m-1.place";

    let wrong_verb = shop.req("shop.order.m-1.palce", "{}").await;
    mistake(&wrong_verb, 404, "unknown_verb", &["palce", "place", "get", "cancel"]);
    let bad_json = shop.req(place, r#"{"user":"u-7","#).await;
    mistake(&bad_json, 400, "bad_request", &["order.place", "user: string", "lines: array", "card: string"]);
    let missing = shop.req(place, r#"{"user":"u-7","lines":[]}"#).await;
    mistake(&missing, 400, "bad_request", &["card", "missing"]);
    let unknown =
        shop.req(place, r#"{"user":"u-7","lines":[{"sku":"t","qty":1,"colour":"red"}],"card":"tok_ok"}"#).await;
    mistake(&unknown, 400, "bad_request", &["colour", "lines"]);
    let wrong_type = shop.req(place, r#"{"user":7,"lines":[],"card":"tok_ok"}"#).await;
    mistake(&wrong_type, 400, "bad_request", &["user", "string"]);
    let trailing = shop.req(place, r#"{"user":"u","lines":[],"card":"c"} and more"#).await;
    mistake(&trailing, 400, "bad_request", &["order.place"]);
    for told in [&bad_json, &missing, &unknown, &wrong_type] {
        // Programs find there what the message names in words.
        let expected = &told.body()["details"]["expected"]["properties"];
        assert!(expected["user"].is_object() && expected["card"].is_object(), "{told:?}");
    }

    let not_canonical = shop.req("shop.order.=41.get", "").await;
    mistake(&not_canonical, 400, "bad_key", &["=41", "canonical"]);
    assert_eq!(not_canonical.body()["details"]["canonical"], json!("A"), "{not_canonical:?}");
    for token in ["=2e", "caf\u{e9}", "x=2", "=FF", "a=zz"] {
        let refused = shop.req(&format!("shop.order.{token}.get"), "").await;
        mistake(&refused, 400, "bad_key", &["key"]);
    }
    let long = shop.req(&format!("shop.order.{}.get", "k".repeat(129)), "").await;
    mistake(&long, 400, "bad_key", &["129", "128"]);
    let longest = shop.req(&format!("shop.order.{}.get", "k".repeat(128)), "").await;
    mistake(&longest, 404, "refused", &["no order"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_payload_over_the_limit_is_refused_at_once() {
    let shop = Shop::shared().await;
    let limit = 512 * 1024;
    // Too long for a command line, so the CLI makes the text itself.
    let told = async |bytes: usize| {
        let text = bytes - r#"{"text":""}"#.len();
        let body = format!(r#"{{"text":"{{{{Random {text} {text}}}}}"}}"#);
        nats(&shop.server, &["req", "shop.notification.big-u.notify", &body]).await
    };
    assert_eq!(told(limit).await.reply(), json!({}));
    let too_large = told(limit + 1).await;
    mistake(&too_large, 413, "payload_too_large", &["524289", "524288"]);
    assert_eq!(too_large.body()["details"]["limit_bytes"], json!(limit), "{too_large:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_refusal_is_the_actors_own_no() {
    let shop = Shop::shared().await;
    shop.register("no-u").await;
    shop.restock("no-tea", 1).await;
    let place = |qty: u32, card: &str, user: &str| {
        json!({ "user": user, "lines": [{ "sku": "no-tea", "qty": qty }], "card": card }).to_string()
    };

    let absent = shop.req("shop.order.no-0.get", "").await;
    mistake(&absent, 404, "refused", &["no-0"]);
    assert_eq!(absent.body()["details"], json!({ "order": "no-0" }), "{absent:?}");

    let out_of_stock = shop.req("shop.order.no-1.place", &place(3, "tok_ok", "no-u")).await;
    mistake(&out_of_stock, 409, "refused", &["no-tea", "short by 2"]);
    assert_eq!(out_of_stock.body()["details"], json!({ "out_of_stock": { "sku": "no-tea", "short": 2 } }));

    let declined = shop.req("shop.order.no-2.place", &place(1, "tok_declined", "no-u")).await;
    mistake(&declined, 402, "refused", &["declined"]);
    let stranger = shop.req("shop.order.no-3.place", &place(1, "tok_ok", "nobody")).await;
    mistake(&stranger, 404, "refused", &["nobody"]);
    let empty = shop.req("shop.order.no-4.place", r#"{"user":"no-u","lines":[],"card":"tok_ok"}"#).await;
    mistake(&empty, 422, "refused", &["at least one line"]);

    // What was refused holds nothing.
    let stock = shop.req("shop.inventory.no-tea.get", "").await.reply();
    assert_eq!((&stock["free"], &stock["reserved"]), (&json!(1), &json!(0)), "{stock}");
    for order in ["no-1", "no-2", "no-3", "no-4"] {
        let payment = shop.req(&format!("shop.payment.{order}.get"), "").await;
        mistake(&payment, 404, "refused", &[order]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_where_nobody_listens_the_broker_says_so_at_once() {
    let shop = Shop::shared().await;
    // No node hosts it; the key is empty; there is no key; no app of that name.
    for subject in ["shop.ghost.o-1.get", "shop.order..get", "shop.order.get", "bazaar.order.o-1.get"] {
        let output = shop.req(subject, "").await;
        assert!(output.no_responders(), "{subject}: {output:?}");
        assert!(output.took < AT_ONCE, "{subject}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_r4_a_service_is_asked_without_a_key() {
    let server = Server::start(Profile::Plain).await;
    let node = pricing(&server).await;
    let quote = async |body: &str| nats(&server, &["req", "shop.pricing.quote", body]).await;
    assert_eq!(quote(r#"{"sku":"tea","qty":2}"#).await.reply(), json!(700));

    let refused = quote(r#"{"sku":"fax","qty":2}"#).await;
    mistake(&refused, 404, "refused", &["no product fax"]);
    mistake(&quote(r#"{"sku":"tea"}"#).await, 400, "bad_request", &["pricing.quote", "qty"]);
    let no_such_verb = nats(&server, &["req", "shop.pricing.qoute", "{}"]).await;
    mistake(&no_such_verb, 404, "unknown_verb", &["qoute", "quote"]);

    node.drain().await.expect("drained");
    assert!(quote("{}").await.no_responders(), "nobody is left");
}

/// The answer is an error as people, programs and NATS tools expect one: at once, with both
/// headers, and with a body that says what is wrong in words that hold all of `said`.
#[track_caller]
fn mistake(output: &CliOutput, code: u16, kind: &str, said: &[&str]) {
    assert!(output.status.success(), "{output:?}");
    assert!(output.took < AT_ONCE, "that took {:?}: {output:?}", output.took);
    assert_eq!(output.header("Nats-Service-Error-Code").as_deref(), Some(&*code.to_string()), "{output:?}");
    let header = output.header("Nats-Service-Error").unwrap_or_default();
    assert!(!header.is_empty(), "{output:?}");
    let body = output.body();
    assert_eq!((&body["code"], &body["kind"]), (&json!(code), &json!(kind)), "{body}");
    assert_eq!(body["retryable"], json!(false), "{body}");
    let message = body["message"].as_str().unwrap_or_default();
    for part in said {
        assert!(message.contains(part), "{part:?} is not said in {message:?}");
    }
}
