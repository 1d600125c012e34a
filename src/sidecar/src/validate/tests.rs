//! Policies, bare and embedded, and what is said of them.

use super::*;

const POLICY: &str = "version: 1\nname: t\n";
/// A provider that writes `x-user-id`.
const WITH_CLAIMS: &str = r#"{"version": 1, "authentication": {"mode": "required", "jwt": {"providers": [{"name": "p", "issuer": "i", "audiences": ["a"], "algorithms": ["HS256"], "keys": {"secret": {"env": "K"}}, "forward": {"token": false, "claims": {"sub": "x-user-id"}}}]}}}"#;

#[track_caller]
fn check_lines(text: &str, expected: &[&str]) {
    let report = check(text);
    let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n  does not start with\n{expected}");
    }
}

fn wasm(configuration: &str) -> String {
    let configuration = configuration.replace('\n', "\n      ");
    format!(
        "typed_config:\n  \"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n  \
         config:\n    root_id: gateway\n    configuration:\n      {configuration}\n"
    )
}

fn wasm_struct(policy: &str) -> String {
    let policy = policy.replace('\n', "\n  ");
    wasm(&format!("\"@type\": type.googleapis.com/google.protobuf.Struct\nvalue:\n  {policy}"))
}

#[test]
fn a_good_bare_policy_has_no_findings_and_a_name() {
    check_lines(POLICY, &[]);
    assert_eq!(check(POLICY).good, ["t"]);
}

#[test]
fn every_mistake_is_found_at_once_with_its_line() {
    check_lines(
        "version: 2\nhttps:\n  mode: sometimes\nip:\n  deny: [nowhere]\nname: a\nname: b\nwhat: 1\n",
        &[
            "1: version: ",
            "3: https.mode: ",
            "5: ip.deny[0]: ",
            "7: name: this key stands on line 6",
            "8: what: ",
        ],
    );
}

#[test]
fn a_syntax_error_is_one_finding_with_its_line() {
    check_lines("version: 1\nip: [\nname: }\n", &["3: (document): "]);
    check_lines("", &["1: (document): the file is empty"]);
}

#[test]
fn every_document_of_a_file_is_checked() {
    check_lines("version: 1\n---\nversion: 2\n", &["3: version: "]);
}

#[test]
fn a_policy_inside_an_envoy_yaml_is_found_with_its_path() {
    check_lines(&wasm_struct("version: 1\nhttps: {mode: redirect}"), &[]);
    check_lines(
        &wasm_struct("version: 1\nhttps: {mode: never}"),
        &["9: typed_config.config.configuration.value.https.mode: "],
    );
}

#[test]
fn a_word_that_envoy_takes_for_a_boolean_is_refused_as_envoy_would() {
    check_lines("version: 1\nname: yes\n", &[]);
    let text = wasm_struct("version: 1\nname: yes");
    check_lines(&text, &["9: typed_config.config.configuration.value.name: "]);
    let report = check(&text);
    assert!(report.findings[0].allowed.contains("bare `yes`"), "{:?}", report.findings);
}

#[test]
fn json_text_inside_an_envoy_yaml_is_checked_with_its_lines() {
    let text = |body: &str| {
        wasm(&format!("\"@type\": type.googleapis.com/google.protobuf.StringValue\nvalue: {body}"))
    };
    check_lines(&text("'{\"version\": 1}'"), &[]);
    let at = "typed_config.config.configuration.value";
    check_lines(&text("|\n  {\n  \"version\": 2\n  }"), &[&format!("9: {at}.version: ")]);
    check_lines(&text("|\n  {\n  \"version\": }\n"), &[&format!("9: {at}: is not JSON")]);
}

#[test]
fn other_plugins_are_left_alone_but_a_file_without_any_policy_is_not_good() {
    let other = wasm_struct("nonsense: true").replace("root_id: gateway", "root_id: pin");
    check_lines(&other, &["1: (document): no gateway policy stands in this file"]);
    check_lines(&format!("{other}---\n{}", wasm_struct("version: 1")), &[]);
}

#[test]
fn an_istio_plugin_is_found() {
    let plugin = |spec: &str| {
        format!("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec:\n  {spec}\n")
    };
    check_lines(&plugin("pluginName: gateway\n  pluginConfig:\n    version: 1"), &[]);
    check_lines(
        &plugin("pluginName: gateway\n  pluginConfig:\n    version: 3"),
        &["6: spec.pluginConfig.version: "],
    );
    check_lines(&plugin("pluginName: gateway"), &["4: spec.pluginConfig: is not set"]);
    check_lines(&plugin("pluginConfig: {version: 1}"), &["4: spec.pluginName: is not set"]);
}

#[test]
fn routes_that_match_on_edited_headers_are_refused() {
    let document = |header: &str| {
        format!(
            "{}routes:\n- match: {{prefix: /, headers: [{{name: {header}}}]}}\n",
            wasm_struct(WITH_CLAIMS)
        )
    };
    check_lines(&document("x-other"), &[]);
    check_lines(
        &document("X-User-Id"),
        &["10: routes[0].match.headers[0].name: a route matches on `X-User-Id`"],
    );
    check_lines(&document("authorization"), &["10: routes[0].match.headers[0].name: "]);
}

#[test]
fn bad_keys_are_reported_like_every_other_mistake() {
    let text = WITH_CLAIMS
        .replace("HS256", "ES256")
        .replace(r#"{"secret": {"env": "K"}}"#, r#"{"jwks_inline": {"keys": [{"kty": "EC"}]}}"#);
    let report = check(&text);
    assert!(!report.findings.is_empty());
    assert!(report.findings[0].path.starts_with("authentication.jwt.providers[0].keys"));
}

#[test]
fn routes_in_one_file_are_checked_against_the_policy_in_another() {
    let envoy = "static_resources:\n  x: {routes: [{match: {headers: [{name: x-user-id}]}}]}\n";
    let reports = check_together(&[envoy.to_owned(), WITH_CLAIMS.to_owned()]);
    assert!(reports[0].findings[0].wrong.contains("x-user-id"), "{reports:?}");
    assert_eq!(reports[1].findings, []);
    let reports = check_together(&[envoy.to_owned(), POLICY.to_owned()]);
    assert!(reports.iter().all(|report| report.findings.is_empty()), "{reports:?}");
}
