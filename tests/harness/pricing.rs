//! A service without keys, on a node inside the test process.

use greenroom::HostOptions;
use greenroom::prelude::*;

use super::Server;

/// Names prices.
#[contract(service, name = "pricing", messages(Quote))]
pub(crate) struct Pricing;

/// Asks for a price.
#[message(Pricing, ask, reply = u64, refusal = Unknown)]
pub(crate) struct Quote {
    pub sku: String,
    pub qty: u32,
}

/// There is no such product.
#[refusal(code = 404)]
#[derive(thiserror::Error)]
#[error("there is no product {sku}")]
pub(crate) struct Unknown {
    pub sku: String,
}

#[derive(Default)]
struct PricingService;

#[service(Pricing)]
impl PricingService {
    #[ask]
    fn quote(&mut self, msg: Quote) -> Result<u64, Unknown> {
        if msg.sku == "tea" { Ok(350 * u64::from(msg.qty)) } else { Err(Unknown { sku: msg.sku }) }
    }
}

/// Hosts three of them in the app `shop`.
pub(crate) async fn pricing(server: &Server) -> Node {
    let three = HostOptions::new().pool(3);
    let node = Node::builder("shop").connect(server.url()).host_with::<PricingService>(three).start().await;
    node.expect("a node starts")
}
