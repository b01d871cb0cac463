//! `#[event]`: what an actor's state is made of, told to whoever watches.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Data, DeriveInput, Ident, LitInt, LitStr, Type};

use crate::attr::{self, Arg, once};
use crate::check::{Problems, snake_case, token_problem};
use crate::derive;

#[derive(Default)]
struct Args {
    contract: Option<Type>,
    version: Option<u32>,
}

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let args = read(args, &mut problems);
    let Some(input) = derive::parse_plain("event", item.clone(), &mut problems) else {
        let problems = problems.into_tokens();
        return quote!(#problems #item);
    };
    let names = names(&input, &mut problems);
    let (derives, problems) = (derive::derives(&input), problems.into_tokens());
    let event = args.contract.as_ref().map(|contract| write(contract, &args, &input, &names));
    quote! {
        #derives
        #input
        #event
        #problems
    }
}

fn read(tokens: TokenStream, problems: &mut Problems) -> Args {
    let mut args = Args::default();
    let mut version = None;
    for arg in attr::args(tokens, problems) {
        match arg {
            Arg::Word(ty) if args.contract.is_none() => args.contract = Some(ty),
            Arg::Pair(key, value) if key == "version" => {
                once(&mut version, value.number(&key, problems), "`version`", problems);
            }
            arg => arg.unknown("event", "the contract and `version = 2`", problems),
        }
    }
    args.version = version.and_then(|version| from_one(&version, problems));
    if args.contract.is_none() {
        problems.at(Span::call_site(), "an event belongs to a contract: `#[event(Order)]`");
    }
    args
}

fn from_one(version: &LitInt, problems: &mut Problems) -> Option<u32> {
    let number = version.base10_parse().ok().filter(|number| *number > 0);
    if number.is_none() {
        problems.at(version.span(), "the version of an event's form counts from 1");
    }
    number
}

/// Each variant with its name in subjects, which is its name in JSON too.
fn names<'a>(input: &'a DeriveInput, problems: &mut Problems) -> Vec<(&'a Ident, String)> {
    let Data::Enum(data) = &input.data else {
        let text = "events are an enum with a variant for each: `pub enum OrderEvent { Placed { .. } }`";
        problems.at(input.ident.span(), text);
        return Vec::new();
    };
    let mut names: Vec<(&Ident, String)> = Vec::new();
    for variant in &data.variants {
        let (name, span) = match renamed(variant) {
            Some(name) => (name.value(), name.span()),
            None => (snake_case(&variant.ident), variant.ident.span()),
        };
        if let Some(problem) = token_problem(&name) {
            problems.at(span, problem);
        } else if let Some((other, _)) = names.iter().find(|(_, taken)| *taken == name) {
            problems.at(span, format!("`{other}` is called {name:?} already: give each event a name of its own"));
        }
        names.push((&variant.ident, name));
    }
    names
}

/// The name in `#[serde(rename = "..")]`.
fn renamed(variant: &syn::Variant) -> Option<LitStr> {
    let mut name = None;
    for attr in variant.attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        // What serde does not understand, it reports itself.
        let _ = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                name = Some(meta.value()?.parse()?);
            } else if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    name
}

fn write(contract: &Type, args: &Args, input: &DeriveInput, names: &[(&Ident, String)]) -> TokenStream {
    let ident = &input.ident;
    let texts = names.iter().map(|(_, name)| name);
    let arms = names.iter().map(|(variant, name)| quote!(Self::#variant { .. } => #name,));
    let version = args.version.as_ref().map(|version| quote!(const VERSION: u32 = #version;));
    let name = match &input.data {
        Data::Enum(data) if data.variants.is_empty() => quote!(match *self {}),
        Data::Enum(_) => quote!(match self { #(#arms)* }),
        _ => quote!(""),
    };
    quote! {
        #[automatically_derived]
        impl ::greenroom::event::Event for #ident {
            const ACTOR: &'static str = <#contract as ::greenroom::contract::Contract>::NAME;
            const NAMES: &'static [&'static str] = &[#(#texts),*];
            #version

            fn name(&self) -> &'static str {
                #name
            }
        }
    }
}
