//! The impls of an `#[actor]` block.
//!
//! What is written stands at the place of the user's own words: a future that is not Send shows at
//! the method, a wrong reply at its return type, a missing handler at the actor's name.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Ident;
use syn::ext::IdentExt;
use syn::spanned::Spanned;

use super::handler::{Activate, Handler, Output, OutputKind, Said};
use super::on::Subscription;
use super::{Block, Kind};
use crate::check::{Mode, assert, last_segment, located, show, snake_case};

/// `impl Actor`, `impl Handle` or `impl Read` for each handler, and what can be asserted of both.
pub(super) fn impls(block: &Block<'_>) -> TokenStream {
    let actor = actor(block);
    let handlers = block.methods.handlers.iter().map(|handler| {
        let (handle, agrees) = (handle(block, handler), agrees(handler));
        quote!(#handle #agrees)
    });
    let subscriptions = block.methods.subscriptions.iter().map(|subscription| on(block, subscription));
    let kind = kind(block);
    quote! {
        #actor
        #(#handlers)*
        #(#subscriptions)*
        #kind
    }
}

fn actor(block: &Block<'_>) -> TokenStream {
    let (item, contract) = (block.item, block.contract);
    let ty = &item.self_ty;
    let (generics, _, bounds) = item.generics.split_for_impl();
    let activate = block.methods.activate.as_ref().map_or_else(|| default(ty), activate);
    let verbs = block.methods.handlers.iter().map(|handler| {
        let (cfgs, message, span) = (&handler.cfgs, &handler.message, located(handler.marked));
        let method = Ident::new(handler.mode.word(), span);
        quote_spanned!(span=> #(#cfgs)* verbs.#method::<#message>();)
    });
    let events = block.methods.subscriptions.iter().map(|subscription| {
        let (cfgs, event, span) = (&subscription.cfgs, &subscription.event, located(subscription.marked));
        quote_spanned!(span=> #(#cfgs)* verbs.on::<#event>();)
    });
    let cell = block.state.map(|field| {
        quote_spanned! {located(field.span())=>
            fn cell(&mut self) -> ::core::option::Option<&mut dyn ::greenroom::state::Cell> {
                ::core::option::Option::Some(&mut self.#field)
            }
        }
    });
    let durable = block.durable.map(|span| quote_spanned!(located(span)=> const DURABLE: bool = true;));
    quote! {
        #[automatically_derived]
        impl #generics ::greenroom::actor::Actor for #ty #bounds {
            type Contract = #contract;
            const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
            #durable

            #activate

            fn verbs(verbs: &mut ::greenroom::Verbs<Self>) {
                #(#verbs)*
                #(#events)*
            }

            #cell
        }
    }
}

fn activate(activate: &Activate) -> TokenStream {
    let span = located(activate.name.span());
    let returned = located(activate.output.span);
    let name = at(&activate.name, returned);
    let (param, arg) = context(activate.takes_context);
    let call = quote_spanned!(returned=> Self::#name(#arg));
    let error = quote_spanned!(span=> ::greenroom::error::Error);
    let output = quote_spanned!(span=> ::core::result::Result<Self, #error>);
    let body = body(activate.is_async, &activate.output, [&quote!(Self), &error], call);
    quote_spanned! {span=>
        fn activate(
            #param: &mut ::greenroom::context::Context<'_, Self>,
        ) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send {
            #body
        }
    }
}

/// Without `fn activate`, the actor starts as its default.
fn default(ty: &syn::Type) -> TokenStream {
    // A trait of its own, because what it asks for can be had in two ways.
    quote_spanned! {located(ty.span())=>
        fn activate(
            _: &mut ::greenroom::context::Context<'_, Self>,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<Self, ::greenroom::error::Error>,
        > + ::core::marker::Send {
            #[diagnostic::on_unimplemented(
                message = "nothing says how `{Self}` starts",
                label = "neither `activate` nor `Default`",
                note = "write `async fn activate(ctx: &mut Context<'_, Self>) \
                        -> Result<Self, Error>` here, or derive `Default`"
            )]
            trait Start {
                fn start() -> Self;
            }

            impl<T: ::core::default::Default> Start for T {
                fn start() -> Self {
                    ::core::default::Default::default()
                }
            }

            ::core::future::ready(::core::result::Result::Ok(<Self as Start>::start()))
        }
    }
}

fn handle(block: &Block<'_>, handler: &Handler) -> TokenStream {
    let ty = &block.item.self_ty;
    let (generics, _, bounds) = block.item.generics.split_for_impl();
    let (message, cfgs, ready) = (&handler.message, &handler.cfgs, !handler.is_async);
    let span = located(handler.name.span());
    let (of, method, itself) = match handler.mode {
        Mode::Ask | Mode::Tell => ("Handle", "handle", quote!(&mut self)),
        Mode::Read => ("Read", "read", quote!(&self)),
    };
    let (of, method) = (Ident::new(of, span), Ident::new(method, span));
    let said = handler.said.map(|said| match said {
        Said::Resumes => quote!(
            const RESUMES: bool = true;
        ),
        Said::Stale => quote!(
            const FRESHNESS: ::greenroom::actor::Freshness = ::greenroom::actor::Freshness::Stale;
        ),
        Said::Strict => quote!(
            const FRESHNESS: ::greenroom::actor::Freshness = ::greenroom::actor::Freshness::Strict;
        ),
    });
    let (param, arg) = context(handler.takes_context);
    let returned = located(handler.output.span);
    let name = at(&handler.name, returned);
    let call = quote_spanned!(returned=> Self::#name(self, msg, #arg));
    let reply = quote_spanned!(span=> <#message as ::greenroom::contract::Message>::Reply);
    let refusal = quote_spanned!(span=> <#message as ::greenroom::contract::Message>::Refusal);
    let output = quote_spanned!(span=> ::core::result::Result<#reply, #refusal>);
    let body = body(handler.is_async, &handler.output, [&reply, &refusal], call);
    quote_spanned! {span=>
        #(#cfgs)*
        #[automatically_derived]
        impl #generics ::greenroom::actor::#of<#message> for #ty #bounds {
            const READY: bool = #ready;
            #said

            fn #method(
                #itself,
                msg: #message,
                #param: &mut ::greenroom::context::Context<'_, Self>,
            ) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send {
                #body
            }
        }
    }
}

/// `impl On` for a method that takes events.
fn on(block: &Block<'_>, subscription: &Subscription) -> TokenStream {
    let ty = &block.item.self_ty;
    let (generics, _, bounds) = block.item.generics.split_for_impl();
    let Subscription { event, cfgs, from, key, is_async, resumes, .. } = subscription;
    let (name, ready) = (subscription.name.unraw().to_string(), !is_async);
    let span = located(subscription.name.span());
    let received = quote_spanned!(span=> ::greenroom::subscribe::Received<#event>);
    let from = from.as_ref().map(|from| {
        let span = located(from.span());
        quote_spanned!(span=> const FROM: ::greenroom::subscribe::Beginning = ::greenroom::subscribe::Beginning::#from;)
    });
    let key = key.as_ref().map(|key| {
        let span = located(key.span());
        quote_spanned! {span=>
            fn key(happened: &#received) -> ::core::option::Option<::std::string::String> {
                let key: ::core::option::Option<::std::string::String> = #key(happened);
                key
            }
        }
    });
    let (param, arg) = context(subscription.takes_context);
    let returned = located(subscription.output.span);
    let method = at(&subscription.name, returned);
    let call = quote_spanned!(returned=> Self::#method(self, happened, #arg));
    let body = match is_async {
        true => quote_spanned!(returned=> async move { let (): () = #call.await; }),
        false => quote_spanned!(returned=> let (): () = #call; ::core::future::ready(())),
    };
    quote_spanned! {span=>
        #(#cfgs)*
        #[automatically_derived]
        impl #generics ::greenroom::subscribe::On<#event> for #ty #bounds {
            const NAME: &'static str = #name;
            const READY: bool = #ready;
            const RESUMES: bool = #resumes;
            #from
            #key

            fn on(
                &mut self,
                happened: #received,
                #param: &mut ::greenroom::context::Context<'_, Self>,
            ) -> impl ::core::future::Future<Output = ()> + ::core::marker::Send {
                #body
            }
        }
    }
}

/// The user's name for a method, at another place.
fn at(name: &Ident, span: Span) -> Ident {
    let mut name = name.clone();
    name.set_span(span);
    name
}

/// The context's parameter, and what is passed on of it.
fn context(takes: bool) -> (TokenStream, TokenStream) {
    if takes { (quote!(ctx), quote!(ctx)) } else { (quote!(_), TokenStream::new()) }
}

/// Calls the method and makes a future of a Result of what it gives.
fn body(is_async: bool, output: &Output, [reply, no]: [&TokenStream; 2], call: TokenStream) -> TokenStream {
    let at = located(output.span);
    let result = quote_spanned!(at=> ::core::result::Result);
    let call = match (is_async, output.kind) {
        // As it is: a block around it would hold the message twice.
        (true, OutputKind::Result) => return call,
        (true, OutputKind::Reply) => quote_spanned!(at=> #call.await),
        (false, _) => call,
    };
    // With its type written out, a wrong reply is a plain mismatch at the method's return type.
    let answer = match output.kind {
        OutputKind::Result => quote_spanned!(at=> let answer: #result<#reply, #no> = #call;),
        OutputKind::Reply => quote_spanned! {at=>
            let reply: #reply = #call;
            let answer = #result::Ok(reply);
        },
    };
    if is_async {
        quote_spanned!(at=> async move { #answer answer })
    } else {
        quote_spanned!(at=> #answer ::core::future::ready(answer))
    }
}

/// The contract names the verb and its mode; the method's name and mark only repeat them.
fn agrees(handler: &Handler) -> TokenStream {
    let (name, message, cfgs) = (handler.name.unraw().to_string(), &handler.message, &handler.cfgs);
    let (text, of_contract) = (show(message), quote!(<#message as ::greenroom::contract::Message>));
    let usual = last_segment(message).map(snake_case).filter(|usual| *usual != name);
    let usual = usual.map(|usual| format!(" (`{usual}`, unless the message says otherwise)")).unwrap_or_default();
    let verb = assert(
        handler.name.span(),
        quote!(::greenroom::contract::same_text(verb, #name)),
        &format!(
            "the contract's verb for `{text}` is not `{name}`: \
             name the method after the verb{usual}"
        ),
    );
    let modes = Mode::ALL.into_iter().filter(|other| *other != handler.mode).map(|other| {
        let variant = other.ident();
        let advice = match other {
            Mode::Ask => "mark the method #[ask] and take `&mut self`",
            Mode::Read => "mark the method #[read] and take `&self`",
            Mode::Tell => "mark the method #[tell], take `&mut self` and return nothing",
        };
        assert(
            handler.marked,
            quote!(!::core::matches!(mode, ::greenroom::contract::Mode::#variant)),
            &format!("`{text}` is {} in the contract, not {}: {advice}", other.one(), handler.mode.one()),
        )
    });
    quote_spanned! {located(message.span())=>
        #(#cfgs)*
        const _: () = {
            let verb = #of_contract::VERB;
            let mode = <#of_contract::Mode as ::greenroom::contract::IsMode>::MODE;
            #verb
            #(#modes)*
        };
    }
}

/// `#[actor]` is for keyed contracts, `#[service]` for services.
fn kind(block: &Block<'_>) -> TokenStream {
    let contract = block.contract;
    let kind = quote!(<#contract as ::greenroom::contract::Contract>::Kind);
    let keyed = quote!(<#kind as ::greenroom::contract::Kind>::KEYED);
    let text = show(contract);
    let (condition, text) = match block.kind {
        Kind::Actor => (keyed, format!("`{text}` is the contract of a service: write #[service({text})]")),
        Kind::Service => {
            (quote!(!#keyed), format!("`{text}` is the contract of a keyed actor: write #[actor({text})]"))
        }
    };
    let assert = assert(contract.span(), condition, &text);
    quote!(const _: () = { #assert };)
}

/// Every message that the contract lists has its handler.
pub(super) fn answers_all(block: &Block<'_>) -> TokenStream {
    let (ty, contract) = (&block.item.self_ty, block.contract);
    let (generics, _, bounds) = block.item.generics.split_for_impl();
    let check = quote_spanned! {located(ty.span())=>
        answered::<#ty, <#contract as ::greenroom::contract::Contract>::Messages>();
    };
    // Asked of the list, not of the actor: the compiler then names the one handler that is missing,
    // and not all that are asked for.
    quote! {
        const _: () = {
            trait AnsweredBy<A> {}
            impl<A: ::greenroom::actor::AnswersAll<L>, L> AnsweredBy<A> for L {}

            fn answered<A, L: AnsweredBy<A>>() {}

            #[allow(dead_code, reason = "compiled, not called")]
            fn check #generics () #bounds {
                #check
            }
        };
    }
}
