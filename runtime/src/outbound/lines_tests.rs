//! Tests of the lines: who goes when, and who waits for whom.

use super::*;

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

struct Fixture {
    lines: Lines,
    pending: Pending,
    way: Arc<Way>,
}

impl Fixture {
    fn new() -> Self {
        let lines = Lines::new(4);
        let way = lines.way("order", 3);
        Self { lines, pending: Pending::default(), way }
    }

    fn line_up(&self, text: &str, number: u64) {
        self.way.line_up(&self.pending, &key(text), number);
    }

    fn waits(&self, text: &str, number: u64, to: Heading) -> Option<Wait> {
        self.way.may_go(&key(text), number, to, Vec::new)
    }

    fn is_held(&self, text: &str) -> bool {
        self.lines.holds("order", 3, &key(text))
    }
}

#[tokio::test]
async fn the_first_to_a_new_owner_goes_alone_until_it_is_answered() {
    let fixture = Fixture::new();
    let way = &fixture.way;
    for number in [1, 2, 3] {
        fixture.line_up("a", number);
    }
    fixture.line_up("b", 4);
    assert!(fixture.waits("a", 1, Heading::Owner(7)).is_none(), "nobody is before it");
    assert!(fixture.waits("a", 2, Heading::Owner(7)).is_some(), "one before it is to be sent");
    assert!(fixture.waits("b", 4, Heading::Owner(7)).is_none(), "each key is by itself");
    way.sent(&key("a"), 1, 7, far());
    let wait = fixture.waits("a", 2, Heading::Owner(7)).expect("the owner has said nothing yet");
    let behind = fixture.waits("a", 3, Heading::Owner(7)).expect("so must the next");
    way.proved(&key("a"), 7);
    wait.woken.await.expect("it is woken");
    assert!(fixture.waits("a", 2, Heading::Owner(7)).is_none());
    way.sent(&key("a"), 2, 7, far());
    behind.woken.await.expect("one after the other");
    assert!(!way.is_straight(7), "one is to be sent yet");
    way.sent(&key("a"), 3, 7, far());
    way.leave(&key("b"), 4);
    assert!(way.is_straight(7) && !fixture.is_held("a"), "what is on its way went the same way");
}

#[tokio::test]
async fn what_went_to_another_owner_comes_first() {
    let fixture = Fixture::new();
    let way = &fixture.way;
    for number in [1, 2] {
        fixture.line_up("a", number);
        assert!(fixture.waits("a", number, Heading::Owner(7)).is_none());
        way.sent(&key("a"), number, 7, far());
        way.proved(&key("a"), 7);
    }
    // The second has come back untaken; the first runs.
    fixture.line_up("a", 1);
    fixture.line_up("a", 2);
    way.sent(&key("a"), 1, 7, far());
    assert!(fixture.waits("a", 2, Heading::Owner(8)).is_some(), "the other one may have the first yet");
    assert!(fixture.waits("a", 2, Heading::Nobody).is_some());
    fixture.line_up("a", 1);
    assert!(fixture.waits("a", 2, Heading::Owner(8)).is_some(), "it is to be sent again");
    assert!(fixture.waits("a", 1, Heading::Owner(8)).is_none(), "at its old place");
    way.leave(&key("a"), 1);
    assert!(fixture.waits("a", 2, Heading::Owner(8)).is_none());
}

#[tokio::test]
async fn a_key_that_may_run_elsewhere_proves_itself() {
    let fixture = Fixture::new();
    let way = &fixture.way;
    fixture.line_up("free", 1);
    assert!(way.may_go(&key("free"), 1, Heading::Owner(7), || vec![key("busy")]).is_none());
    way.sent(&key("free"), 1, 7, far());
    way.proved(&key("free"), 7);
    assert!(!way.is_straight(7), "the busy key is not taken yet");
    for number in [2, 3] {
        fixture.line_up("busy", number);
    }
    way.sent(&key("busy"), 2, 7, far());
    assert!(fixture.waits("busy", 3, Heading::Owner(7)).is_some());
    way.proved(&key("busy"), 7);
    assert!(fixture.waits("busy", 3, Heading::Owner(7)).is_none());
    way.sent(&key("busy"), 3, 7, far());
    assert!(way.is_straight(7));
}

#[tokio::test]
async fn who_does_nothing_is_passed_after_a_second() {
    let fixture = Fixture::new();
    fixture.line_up("a", 1);
    fixture.line_up("a", 2);
    let wait = fixture.waits("a", 2, Heading::Owner(7)).expect("the first may go");
    assert!(wait.until <= Instant::now() + PATIENCE);
    tokio::time::sleep_until(wait.until).await;
    assert!(fixture.waits("a", 2, Heading::Owner(7)).is_none(), "and has not");
}

#[tokio::test]
async fn nothing_is_sent_under_a_claim_that_was_taken() {
    let fixture = Fixture::new();
    let way = &fixture.way;
    assert!(way.stands(7));
    assert!(fixture.lines.taken(&fixture.pending, "order", 3, 8).is_some());
    assert!(fixture.lines.taken(&fixture.pending, "order", 2, 8).is_none(), "nobody has gone that way");
    assert!(!way.stands(7) && way.stands(8));
    fixture.line_up("a", 1);
    assert!(fixture.waits("a", 1, Heading::Owner(7)).is_some(), "it is looked up again");
    assert!(fixture.waits("a", 1, Heading::Owner(8)).is_none());
}

#[test]
fn what_went_to_the_holder_before_is_not_forgotten_when_the_partition_becomes_ours() {
    let fixture = Fixture::new();
    let way = &fixture.way;
    for (text, number) in [("a", 1), ("b", 2)] {
        fixture.line_up(text, number);
    }
    assert!(fixture.waits("a", 1, Heading::Owner(7)).is_none());
    way.sent(&key("a"), 1, 7, far());
    way.proved(&key("a"), 7);
    fixture.lines.opening(&fixture.pending, "order", 3);
    // Nothing is to be sent any more, and all that went to the holder is his: elsewhere that is enough.
    way.leave(&key("b"), 2);
    assert!(fixture.is_held("a"), "what is asked here comes behind what is asked there");
    way.leave(&key("a"), 1);
    assert!(!fixture.is_held("a"));
}
