//! No attribute panics, whatever stands in it and below it; every slip is an error of ours.

use proc_macro2::TokenStream;

use crate::{actor, contract, derive, event, message, refusal};

type Expand = fn(TokenStream, TokenStream) -> TokenStream;

const ATTRIBUTES: [(&str, Expand); 7] = [
    ("contract", contract::expand),
    ("message", message::expand),
    ("data", derive::expand),
    ("refusal", refusal::expand),
    ("event", event::expand),
    ("actor", |args, item| actor::expand(actor::Kind::Actor, args, item)),
    ("service", |args, item| actor::expand(actor::Kind::Service, args, item)),
];

const ARGS: &[&str] = &[
    "",
    ",",
    "Order",
    "Order Order",
    "Order, Order",
    "Order,, ask",
    "= 1",
    "name =",
    "name = order",
    "name = \"\"",
    "name = 1, name = 2",
    "messages",
    "messages()",
    "messages(1)",
    "messages = Place",
    "messages(Place, Place), messages(Get)",
    "service, service",
    "Order, ask, tell",
    "Order, tell, reply = \"x\", refusal = 1",
    "Order, verb = \"on\"",
    "Order, version = 0",
    "Order, version = 99999999999999999999",
    "Order, version = 1.5",
    "code = 404",
    "code = 99999",
    "code = \"404\"",
    "Order, state = a::b",
    "Order, state = \"order\"",
    "Order, state = order, state = order",
    "[Order]",
    "&'static mut dyn Fn(Order)",
    "\"Order\"",
    "#!?",
];

const ITEMS: &[&str] = &[
    "",
    "fn place() {}",
    "mod order {}",
    "struct Order;",
    "struct Order(u32);",
    "struct Order<T> { lines: Vec<T> }",
    "union Order { a: u32 }",
    "enum Order {}",
    "enum Order { #[code(404)] A, #[code] B, #[code(\"x\")] C { d: u32 }, #[code(1)] #[code(2)] D(u32) }",
    "enum Order { #[serde(rename = 1)] A, #[serde(rename = \"a\")] B, #[serde(rename = \"a\")] C, É }",
    "#[message] #[message(a, b)] #[code(1)] #[derive(=)] #[serde] struct Order;",
    "impl Order {}",
    "impl Order for u32 { #[ask] fn a(&self) {} }",
    "impl Order { const A: u32 = 1; type B = u32; #[ask] fn a(); }",
    "impl Order { #[ask] #[read] #[tell(x)] fn a(self, self::A(b): A, c: impl D, ...) -> impl E {} }",
    "impl Order { #[ask] unsafe fn a<T, const N: usize>(self: Box<Self>, _: &T) -> Result {} }",
    "impl Order { #[tell] fn r#move(&mut self, _: (A, B)) -> ! {} #[ask] fn move_(&mut self, _: (A, B)) {} }",
    "impl Order { fn activate(self) {} }",
    "impl Order { async fn activate(_: &mut Context<Self>, _: u32) {} }",
    "impl Order { fn activate() {} #[read] fn activate(&self, _: dyn A) {} }",
];

#[test]
fn nothing_panics() {
    for (name, expand) in ATTRIBUTES {
        for args in ARGS {
            for item in ITEMS {
                let (Ok(args), Ok(item)) = (args.parse(), item.parse()) else {
                    panic!("not even tokens: {args} {item}");
                };
                let written = expand(args, item);
                // What is written is at least Rust, or the compiler would talk of something else.
                if item_is_rust(&written) {
                    continue;
                }
                assert!(written.to_string().contains("compile_error"), "{name}: {written}");
            }
        }
    }
}

fn item_is_rust(written: &TokenStream) -> bool {
    syn::parse2::<syn::File>(written.clone()).is_ok()
}
