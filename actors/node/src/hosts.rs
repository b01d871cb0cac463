//! Which actors a node can host, by the names that their contracts give them.

use greenroom::{HostOptions, NodeBuilder};
use shop_inventory::InventoryActor;
use shop_notification::NotificationActor;
use shop_order::OrderActor;
use shop_payment::PaymentActor;
use shop_user::UserActor;

/// An actor that can be hosted.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    /// Adds it to a node, with whatever works beside it.
    pub(crate) add: fn(NodeBuilder, HostOptions) -> NodeBuilder,
}

/// All of them. A new service of the shop is one more line here.
pub(crate) const HOSTS: [Host; 5] = [
    Host { name: "user", add: |node, options| node.host_with::<UserActor>(options) },
    Host { name: "order", add: |node, options| node.host_with::<OrderActor>(options) },
    Host { name: "payment", add: |node, options| node.host_with::<PaymentActor>(options) },
    Host { name: "inventory", add: |node, options| node.host_with::<InventoryActor>(options) },
    Host { name: "notification", add: |node, options| node.host_with::<NotificationActor>(options) },
];

/// What `--host` says: names apart by commas, or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosted(pub(crate) Vec<&'static str>);

impl std::str::FromStr for Hosted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || HOSTS.iter().map(|host| host.name);
        if text.trim() == "all" {
            return Ok(Self(known().collect()));
        }
        let mut names = Vec::new();
        for name in text.split(',').map(str::trim) {
            let Some(name) = known().find(|known| *known == name) else {
                let known: Vec<_> = known().collect();
                return Err(format!("no actor is called {name:?}; there are {}, and all", known.join(", ")));
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Self(names))
    }
}

impl Hosted {
    /// Adds all of them to a node.
    pub(crate) fn add_to(&self, node: NodeBuilder, options: &HostOptions) -> NodeBuilder {
        let hosts = HOSTS.iter().filter(|host| self.0.contains(&host.name));
        hosts.fold(node, |node, host| (host.add)(node, options.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_once_each_or_all_together() {
        let hosted = |text: &str| text.parse::<Hosted>().map(|hosted| hosted.0.join(" "));
        assert_eq!(hosted("order").as_deref(), Ok("order"));
        assert_eq!(hosted("order, payment,order").as_deref(), Ok("order payment"));
        assert_eq!(hosted("all").as_deref(), Ok("user order payment inventory notification"));
    }

    #[test]
    fn an_unknown_host_is_answered_with_those_that_are() {
        for text in ["orders", "order,", "", "order;payment"] {
            let why = text.parse::<Hosted>().expect_err("no such actor");
            assert!(why.contains("there are user, order, payment, inventory, notification, and all"), "{why}");
        }
    }
}
