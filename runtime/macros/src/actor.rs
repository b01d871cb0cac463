//! `#[actor]` and `#[service]`: the handlers of a contract, as methods of one impl block.
//!
//! `handler` reads and checks the methods, `on` those that take events; `expand` writes the impls.

mod expand;
mod handler;
mod on;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, ItemImpl, Type};

use crate::attr::{self, Arg, once};
use crate::check::{Problems, show};
use handler::Methods;

/// Which of the two attributes it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Actor,
    Service,
}

impl Kind {
    fn attribute(self) -> &'static str {
        match self {
            Kind::Actor => "actor",
            Kind::Service => "service",
        }
    }

    fn known(self) -> &'static str {
        match self {
            Kind::Actor => "the contract, `state = field` and `durable`",
            Kind::Service => "the contract",
        }
    }
}

/// What one impl block says, checked as far as it can be without knowing the types.
struct Block<'a> {
    kind: Kind,
    contract: &'a Type,
    state: Option<&'a Ident>,
    durable: Option<Span>,
    item: &'a ItemImpl,
    methods: &'a Methods,
}

pub(crate) fn expand(kind: Kind, args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let Said { contract, state, durable } = read(kind, args, &mut problems);
    let Some(mut item) = parse(kind, &item, &mut problems) else {
        let problems = problems.into_tokens();
        return quote!(#problems #item);
    };
    let methods = handler::methods(kind, &mut item, &mut problems);
    if methods.handlers.is_empty() && methods.subscriptions.is_empty() && problems.is_empty() {
        let text = format!(
            "`{}` handles nothing: mark a method for each message, \
             `#[ask] fn verb(&mut self, msg: Verb)`",
            show(&item.self_ty)
        );
        problems.push(syn::Error::new_spanned(&item.self_ty, text));
    }
    let sound = problems.is_empty();
    let problems = problems.into_tokens();
    let own = contract.as_ref().filter(|_| item.trait_.is_none());
    let impls = own.map(|contract| {
        let block = Block { kind, contract, state: state.as_ref(), durable, item: &item, methods: &methods };
        // With a method in doubt, the contract's list would only repeat what is said already.
        let complete = sound.then(|| expand::answers_all(&block));
        let impls = expand::impls(&block);
        quote!(#impls #complete)
    });
    quote! {
        #item
        #impls
        #problems
    }
}

/// What stands in the attribute's parentheses.
struct Said {
    contract: Option<Type>,
    state: Option<Ident>,
    /// Where it says so.
    durable: Option<Span>,
}

fn read(kind: Kind, tokens: TokenStream, problems: &mut Problems) -> Said {
    let (mut contract, mut state, mut durable) = (None, None, None);
    for arg in attr::args(tokens, problems) {
        match arg {
            arg if arg.is_word("durable") && kind == Kind::Actor => durable = Some(arg.span()),
            Arg::Pair(key, _) if key == "durable" && kind == Kind::Actor => {
                problems.at(key.span(), "`durable` takes no value: write `state = field, durable`");
            }
            Arg::Word(ty) if contract.is_none() => contract = Some(ty),
            Arg::Pair(key, value) if key == "state" && kind == Kind::Actor => {
                once(&mut state, value.ident(&key, problems), "`state`", problems);
            }
            Arg::Pair(key, _) if key == "state" => {
                let text = "a service keeps no state: make it an #[actor], or leave `state` out";
                problems.at(key.span(), text);
            }
            arg => arg.unknown(kind.attribute(), kind.known(), problems),
        }
    }
    if contract.is_none() {
        let text = format!("name the contract whose messages it handles: `#[{}(Order)]`", kind.attribute());
        problems.at(Span::call_site(), text);
    }
    if let (Some(span), None) = (durable, &state) {
        problems.at(span, "what is durable is the actor's state: name its field, `state = field, durable`");
    }
    Said { contract, state, durable }
}

fn parse(kind: Kind, item: &TokenStream, problems: &mut Problems) -> Option<ItemImpl> {
    let attribute = kind.attribute();
    match syn::parse2::<ItemImpl>(item.clone()) {
        Ok(item) => {
            if let Some((_, of, _)) = &item.trait_ {
                let text = format!("#[{attribute}] goes on the type's own `impl {} {{ .. }}`", show(&item.self_ty));
                problems.push(syn::Error::new_spanned(of, text));
            }
            Some(item)
        }
        Err(error) if syn::parse2::<syn::DeriveInput>(item.clone()).is_err() => {
            // A slip inside of an impl block: its own words say best what it is.
            problems.push(error);
            None
        }
        Err(_) => {
            let text = format!("#[{attribute}] goes on the `impl` block that holds the handlers, not on the type");
            problems.at(Span::call_site(), text);
            None
        }
    }
}
