//! What the attributes take, and what they say to a mistake: one mistake for each file.
//!
//! The `.stderr` beside a case is what a newcomer reads. After a change, read it as one, and only
//! then keep it: `TRYBUILD=overwrite cargo test -p greenroom --test ui`.

#[test]
fn the_attributes_say_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass_*.rs");
    for attribute in ["contract", "message", "refusal", "event", "actor", "service"] {
        cases.compile_fail(format!("tests/ui/{attribute}_*.rs"));
    }
}
