//! The whole shop: a broker and six processes.

use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use super::{CliOutput, Profile, Server, ShopNode, nats};

/// How long the nodes' leases live here, as in the demo.
pub(crate) const LEASE: &str = "3s";

/// Five services, each in a process of its own, order in two.
pub(crate) struct Shop {
    // The nodes before the broker.
    pub(crate) user: ShopNode,
    pub(crate) orders: [ShopNode; 2],
    pub(crate) payment: ShopNode,
    pub(crate) inventory: ShopNode,
    pub(crate) notification: ShopNode,
    pub(crate) server: Server,
}

impl Shop {
    /// Opens a shop on the repository's `nats.conf`.
    pub(crate) async fn open() -> Self {
        Self::open_on(Server::start(Profile::Shop).await).await
    }

    /// Opens a shop on this server.
    pub(crate) async fn open_on(server: Server) -> Self {
        let node = async |hosts| ShopNode::spawn(&server, hosts, &["--lease", LEASE]).await;
        let (user, first, second, payment, inventory, notification) = tokio::join!(
            node("user"),
            node("order"),
            node("order"),
            node("payment"),
            node("inventory"),
            node("notification")
        );
        Self { user, orders: [first, second], payment, inventory, notification, server }
    }

    /// The shop that tests share that only add to it, under keys of their own. It closes with the
    /// last test that holds it.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Shop>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(shop) = shared.upgrade() {
            return shop;
        }
        let shop = Arc::new(Self::open().await);
        *shared = Arc::downgrade(&shop);
        shop
    }

    /// `nats req {subject} {body}`, as typed by hand.
    pub(crate) async fn req(&self, subject: &str, body: &str) -> CliOutput {
        nats(&self.server, &["req", subject, body]).await
    }

    /// Registers a user, by the CLI.
    pub(crate) async fn register(&self, user: &str) {
        let body = r#"{"name":"Ada","email":"ada@example.com"}"#;
        self.req(&format!("shop.user.{user}.register"), body).await.reply();
    }

    /// Restocks a product, by the CLI.
    pub(crate) async fn restock(&self, sku: &str, qty: u32) {
        self.req(&format!("shop.inventory.{sku}.restock"), &format!(r#"{{"qty":{qty}}}"#)).await.reply();
    }
}
