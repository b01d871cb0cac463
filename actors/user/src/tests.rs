use greenroom::{AskError, Node};
use shop_contract::user::{Get, NoSuchUser, Register, RegisterRefused, User, UserView};

use crate::UserActor;

async fn node() -> Node {
    Node::local("shop").host::<UserActor>().start().await.expect("a local node starts")
}

fn ada() -> Register {
    Register { name: "Ada".into(), email: "ada@example.org".into() }
}

async fn register(node: &Node, id: &str, msg: Register) -> Result<UserView, RegisterRefused> {
    match node.actor::<User>(id).ask(msg).await {
        Ok(view) => Ok(view),
        Err(AskError::Refused(refused)) => Err(refused),
        Err(AskError::Failed(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_registered_user_is_shown_and_another_is_not() {
    let node = node().await;
    let ada = register(&node, "u-1", ada()).await.expect("registered");
    assert_eq!(ada, UserView { id: "u-1".into(), name: "Ada".into(), email: "ada@example.org".into() });
    assert_eq!(node.actor::<User>("u-1").ask(Get {}).await.expect("shown"), ada);

    let nobody = node.actor::<User>("u-2").ask(Get {}).await.expect_err("nobody is u-2");
    assert_eq!(nobody.refusal(), Some(&NoSuchUser { id: "u-2".into() }));
}

#[tokio::test]
async fn registering_again_changes_nothing() {
    let node = node().await;
    let first = register(&node, "u-1", ada()).await.expect("registered");
    let again = register(&node, "u-1", ada()).await.expect("the same data is no conflict");
    assert_eq!(first, again);

    for other in [
        Register { name: "Eve".into(), ..ada() },
        Register { email: "eve@example.org".into(), ..ada() },
        Register { email: "not an address".into(), ..ada() },
    ] {
        let refused = register(&node, "u-1", other).await.expect_err("taken");
        assert_eq!(refused, RegisterRefused::AlreadyRegistered { id: "u-1".into() });
    }
    assert_eq!(node.actor::<User>("u-1").ask(Get {}).await.expect("shown"), first);
}

#[tokio::test]
async fn what_is_no_address_or_name_is_refused_and_leaves_the_id_free() {
    let node = node().await;
    let long = format!("a@{}.org", "b".repeat(260));
    for email in ["", "ada", "@example.org", "ada@", "ada@org", "a@b@c.org", "a da@example.org", "ada@.org", &long] {
        let refused = register(&node, "u-1", Register { email: email.into(), ..ada() }).await;
        assert!(matches!(refused, Err(RegisterRefused::BadEmail { .. })), "{email:?}: {refused:?}");
    }
    for name in ["", "  ", &"n".repeat(201)] {
        let refused = register(&node, "u-1", Register { name: name.into(), ..ada() }).await;
        assert!(matches!(refused, Err(RegisterRefused::BadName { .. })), "{name:?}: {refused:?}");
    }
    register(&node, "u-1", ada()).await.expect("the id is still free");
}
