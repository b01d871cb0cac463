//! `#[contract]`: the address type of an actor or a service.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Expr, Fields, ItemStruct, Lit, LitStr, Meta, Type};

use crate::attr::{self, Arg, once};
use crate::check::{Problems, assert, located, name_problem, show, snake_case, verbs};

const KNOWN: &str = "`service`, `name = \"..\"`, `version = \"..\"`, `messages(..)` and `event = ..`";
/// The longest tuple that is a `MessageList`.
const MESSAGES_MAX: usize = 24;

#[derive(Default)]
struct Args {
    service: bool,
    name: Option<LitStr>,
    version: Option<LitStr>,
    messages: Option<Vec<Type>>,
    event: Option<Type>,
}

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let args = read(args, &mut problems);
    let input = match syn::parse2::<ItemStruct>(item.clone()) {
        Ok(input) => input,
        Err(error) => {
            let text = "#[contract] goes on the address, a struct without fields: `pub struct Order;`";
            problems.at(error.span(), text);
            let problems = problems.into_tokens();
            return quote!(#problems #item);
        }
    };
    check(&args, &input, &mut problems);
    let sound = problems.is_empty();
    let problems = problems.into_tokens();
    let contract = write(&args, &input);
    let asserts = sound.then(|| asserts(&args, &input));
    quote! {
        #input
        #contract
        #asserts
        #problems
    }
}

fn read(tokens: TokenStream, problems: &mut Problems) -> Args {
    let mut args = Args::default();
    for arg in attr::args(tokens, problems) {
        if arg.is_word("service") {
            args.service = true;
            continue;
        }
        match arg {
            Arg::Pair(key, value) if key == "name" => {
                once(&mut args.name, value.text(&key, problems), "`name`", problems);
            }
            Arg::Pair(key, value) if key == "version" => {
                once(&mut args.version, value.text(&key, problems), "`version`", problems);
            }
            Arg::Pair(key, value) if key == "event" => {
                once(&mut args.event, value.ty(&key, problems), "`event`", problems);
            }
            Arg::List(key, types) if key == "messages" => {
                if args.messages.replace(types).is_some() {
                    problems.at(key.span(), "`messages` is given twice: keep one list");
                }
            }
            arg => arg.unknown("contract", KNOWN, problems),
        }
    }
    args
}

fn check(args: &Args, input: &ItemStruct, problems: &mut Problems) {
    if !matches!(input.fields, Fields::Unit) || !input.generics.params.is_empty() {
        let text = format!("an address holds no data, the actor does: write `pub struct {};`", input.ident);
        problems.at(input.ident.span(), text);
    }
    let (name, span) = name(args, input);
    if let Some(problem) = name_problem(&name) {
        let advice = if args.name.is_none() { "; or give it a name with `name = \"..\"`" } else { "" };
        problems.at(span, format!("{problem}{advice}"));
    }
    if let Some(version) = &args.version
        && !is_semver(&version.value())
    {
        problems.at(version.span(), "a version is SemVer, as in \"1.0.0\"; left out, it is the crate's");
    }
    let messages = args.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        problems.at(Span::call_site(), "a contract lists its messages: `messages(Place, Get)`");
    }
    if let Some(extra) = messages.get(MESSAGES_MAX) {
        let text = format!("a contract has at most {MESSAGES_MAX} messages: split the actor in two");
        problems.at(extra.span(), text);
    }
    for (at, message) in messages.iter().enumerate() {
        if messages[..at].contains(message) {
            let text = format!("`{}` is listed twice: a message has one place in a contract", show(message));
            problems.at(message.span(), text);
        }
    }
}

/// The name and where it is written.
fn name(args: &Args, input: &ItemStruct) -> (String, Span) {
    match &args.name {
        Some(name) => (name.value(), name.span()),
        None => (snake_case(&input.ident), input.ident.span()),
    }
}

fn write(args: &Args, input: &ItemStruct) -> TokenStream {
    let ident = &input.ident;
    let (generics, of, bounds) = input.generics.split_for_impl();
    let (name, _) = name(args, input);
    let version = match &args.version {
        Some(version) => quote!(#version),
        None => quote!(::core::env!("CARGO_PKG_VERSION")),
    };
    let description = first_sentence(&input.attrs);
    let kind = if args.service { quote!(Service) } else { quote!(Keyed) };
    // Past a mistake, the list is cut to what still is one.
    let mut messages = args.messages.clone().unwrap_or_default();
    messages.truncate(MESSAGES_MAX);
    let list = messages.first().map_or_else(Span::call_site, |first| located(first.span()));
    let list = quote_spanned!(list=> (#(#messages,)*));
    let event = match &args.event {
        Some(event) => quote!(#event),
        None => quote!(::greenroom::contract::NoEvent),
    };
    quote! {
        #[automatically_derived]
        impl #generics ::greenroom::contract::Contract for #ident #of #bounds {
            const NAME: &'static str = #name;
            const VERSION: &'static str = #version;
            const DESCRIPTION: &'static str = #description;
            type Kind = ::greenroom::contract::#kind;
            type Messages = #list;
            type Event = #event;
        }
    }
}

fn asserts(args: &Args, input: &ItemStruct) -> TokenStream {
    let ident = &input.ident;
    let belong = args
        .messages
        .iter()
        .flatten()
        .map(|message| quote_spanned!(located(message.span())=> belongs::<#message, #ident>();));
    let verbs = verbs(ident);
    let differ = assert(
        ident.span(),
        quote!(::greenroom::contract::verbs_differ(#verbs)),
        &format!(
            "two messages of `{ident}` have the same verb: \
             give one of them another with `verb = \"..\"`"
        ),
    );
    let event = args.event.as_ref().map(|event| {
        assert(
            event.span(),
            quote!(::greenroom::contract::same_text(
                <#event as ::greenroom::event::Event>::ACTOR,
                <#ident as ::greenroom::contract::Contract>::NAME
            )),
            &format!("`{0}` is not an event of `{ident}`: declare it `#[event({ident})]`", show(event)),
        )
    });
    quote! {
        const _: fn() = || {
            fn belongs<M: ::greenroom::contract::Message<Contract = C>, C>() {}
            #(#belong)*
        };
        const _: () = { #differ #event };
    }
}

/// The first sentence of the documentation, for `nats micro info`.
fn first_sentence(attrs: &[Attribute]) -> String {
    let mut text = String::new();
    for attr in attrs {
        let Meta::NameValue(pair) = &attr.meta else {
            continue;
        };
        let Expr::Lit(literal) = &pair.value else {
            continue;
        };
        let Lit::Str(line) = &literal.lit else {
            continue;
        };
        if !pair.path.is_ident("doc") {
            continue;
        }
        // Not `lines()`, to which an empty doc comment, the end of a paragraph, is no line.
        for line in line.value().split('\n') {
            let line = line.trim();
            if line.is_empty() && !text.is_empty() {
                return cut(&text);
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    cut(&text)
}

/// A sentence ends with a full stop before a capital: "e.g. this" goes on.
fn cut(text: &str) -> String {
    for (at, _) in text.match_indices(". ") {
        if text[at + 2..].starts_with(char::is_uppercase) {
            return text[..=at].to_owned();
        }
    }
    text.to_owned()
}

/// Close enough to SemVer to catch what the service protocol would refuse.
fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            && (part.len() == 1 || (!part.is_empty() && !part.starts_with('0')))
    };
    let is_label = |label: &str| {
        label
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
    };
    numbers.len() == 3 && numbers.iter().all(is_number) && pre.is_none_or(is_label) && build.is_none_or(is_label)
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn the_description_is_one_sentence() {
        let of = |item: ItemStruct| first_sentence(&item.attrs);
        assert_eq!(
            of(parse_quote!(
                struct Bare;
            )),
            ""
        );
        assert_eq!(
            of(parse_quote! {
                /// A sentence over
                /// two lines, e.g. this one. Another sentence.
                struct Order;
            }),
            "A sentence over two lines, e.g. this one."
        );
        assert_eq!(
            of(parse_quote! {
                /// No full stop
                ///
                /// A paragraph.
                struct Order;
            }),
            "No full stop"
        );
        assert_eq!(
            of(parse_quote! {
                /** Written. As a block. */
                struct Order;
            }),
            "Written."
        );
    }

    #[test]
    fn versions_are_semver() {
        for sound in ["0.1.0", "1.20.300", "2.0.0-rc.1", "2.0.0+b-7", "2.0.0-a.b+c"] {
            assert!(is_semver(sound), "{sound}");
        }
        for wrong in ["", "1", "1.0", "1.0.0.0", "01.0.0", "1..0", "v1.0.0", "1.0.0-", "1.0.0-a..b"] {
            assert!(!is_semver(wrong), "{wrong}");
        }
    }
}
