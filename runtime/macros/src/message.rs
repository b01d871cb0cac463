//! `#[message]`: one verb of a contract.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{DeriveInput, LitStr, Type};

use crate::attr::{self, Arg, once};
use crate::check::{Mode, Problems, assert, name_problem, show, snake_case, verbs};
use crate::derive;

const KNOWN: &str = "the contract, `ask`, `read` or `tell`, then `reply = ..`, `refusal = ..` and `verb = \"..\"`";

#[derive(Default)]
struct Args {
    contract: Option<Type>,
    mode: Option<Mode>,
    verb: Option<LitStr>,
    reply: Option<Type>,
    refusal: Option<Type>,
}

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let args = read(args, &mut problems);
    let Some(mut input) = derive::parse_plain("message", item.clone(), &mut problems) else {
        let problems = problems.into_tokens();
        return quote!(#problems #item);
    };
    only_once(&mut input, &mut problems);
    let verb = verb(&args, &input, &mut problems);
    let sound = problems.is_empty();
    let (derives, problems) = (derive::derives(&input), problems.into_tokens());
    let message = write(&args, &input, &verb);
    let listed = args.contract.as_ref().filter(|_| sound).map(|contract| listed(contract, &input));
    quote! {
        #derives
        #input
        #message
        #listed
        #problems
    }
}

fn read(tokens: TokenStream, problems: &mut Problems) -> Args {
    let (mut args, mut answers) = (Args::default(), Vec::new());
    for arg in attr::args(tokens, problems) {
        let word = matches!(arg, Arg::Word(_)).then(|| arg.key().and_then(Mode::of)).flatten();
        if let Some(mode) = word {
            if args.mode.is_some() {
                problems.at(arg.span(), "a message is sent in one way: keep one of `ask`, `read` and `tell`");
            }
            args.mode.get_or_insert(mode);
            continue;
        }
        match arg {
            Arg::Word(ty) if args.contract.is_none() => args.contract = Some(ty),
            Arg::Pair(key, value) if key == "verb" => {
                once(&mut args.verb, value.text(&key, problems), "`verb`", problems);
            }
            Arg::Pair(key, value) if key == "reply" => {
                answers.push(key.clone());
                once(&mut args.reply, value.ty(&key, problems), "`reply`", problems);
            }
            Arg::Pair(key, value) if key == "refusal" => {
                answers.push(key.clone());
                once(&mut args.refusal, value.ty(&key, problems), "`refusal`", problems);
            }
            arg => arg.unknown("message", KNOWN, problems),
        }
    }
    if args.contract.is_some() && args.mode.is_none() {
        let text = "say how it is sent: `ask` (a turn with a reply), `read` (a look with a reply) \
                    or `tell` (a turn without one)";
        problems.at(Span::call_site(), text);
    }
    for key in answers.iter().filter(|_| args.mode == Some(Mode::Tell)) {
        problems.at(key.span(), format!("a tell has no {key}: leave it out, or make it an `ask`"));
    }
    args
}

/// A second `#[message]` on the same item would make it two verbs.
fn only_once(input: &mut DeriveInput, problems: &mut Problems) {
    let ident = input.ident.clone();
    input.attrs.retain(|attr| {
        let again = attr.path().segments.last().is_some_and(|segment| segment.ident == "message");
        if again {
            let text = format!(
                "`{ident}` already has a place in a contract; \
                 give each verb a message type of its own"
            );
            problems.push(syn::Error::new_spanned(attr, text));
        }
        !again
    });
}

fn verb(args: &Args, input: &DeriveInput, problems: &mut Problems) -> String {
    let (verb, span, advice) = match &args.verb {
        Some(verb) => (verb.value(), verb.span(), ""),
        None => (snake_case(&input.ident), input.ident.span(), "; or give it a verb with `verb = \"..\"`"),
    };
    if let Some(problem) = name_problem(&verb) {
        problems.at(span, format!("{problem}{advice}"));
    }
    verb
}

fn write(args: &Args, input: &DeriveInput, verb: &str) -> TokenStream {
    let ident = &input.ident;
    let contract = args.contract.as_ref().map_or_else(no_contract, |contract| quote!(#contract));
    let mode = args.mode.unwrap_or(Mode::Ask).ident();
    let reply = args.reply.as_ref().map_or_else(|| quote!(()), |ty| quote!(#ty));
    let refusal = args.refusal.as_ref().map_or_else(|| quote!(::greenroom::contract::Never), |ty| quote!(#ty));
    quote! {
        #[automatically_derived]
        impl ::greenroom::contract::Message for #ident {
            const VERB: &'static str = #verb;
            type Contract = #contract;
            type Mode = ::greenroom::contract::mode::#mode;
            type Reply = #reply;
            type Refusal = #refusal;
        }
    }
}

/// The error, inside of a type: the compiler has nothing to add about a message whose contract is
/// that.
fn no_contract() -> TokenStream {
    let text = "a message belongs to a contract: `#[message(Order, ask, reply = Placed)]`";
    quote!([(); { ::core::compile_error!(#text) }])
}

fn listed(contract: &Type, input: &DeriveInput) -> TokenStream {
    let ident = &input.ident;
    let verbs = verbs(contract);
    let verb = quote!(<#ident as ::greenroom::contract::Message>::VERB);
    let listed = assert(
        ident.span(),
        quote!(::greenroom::contract::has_verb(#verbs, #verb)),
        &format!("`{ident}` is not in the messages(..) of `{}`: add it there", show(contract)),
    );
    quote!(const _: () = { #listed };)
}
