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

/// Envoy hands every fraction over as text, which is as good; a bad one is bad in any spelling, and
/// quotes would not help.
#[test]
fn a_fraction_is_taken_as_envoy_hands_it_over() {
    let limit = |threshold: &str| {
        wasm_struct(&format!(
            "version: 1\nrate_limits:\n- {{name: l, key: [], requests: 1, per: 1s, algorithm: \
             adaptive, adaptive: {{threshold: {threshold}}}}}"
        ))
    };
    for good in ["0.5", "\"0.5\"", ".500"] {
        check_lines(&limit(good), &[]);
    }
    let report = check(&limit("1.5"));
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert!(finding.wrong.contains("is too large"), "{finding:?}");
    assert!(!finding.allowed.contains("bare"), "{finding:?}");
    let report = check(&limit("0.5"));
    assert!(report.warnings[0].contains("always has its full rate"), "{:?}", report.warnings);
    let note = &report.notes[0];
    let at = "typed_config.config.configuration.value: rate limits take at most ";
    assert!(note.starts_with(at) && note.ends_with(" of shared memory in each Envoy"), "{note}");
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

/// A listener with the gateway in it; `settings` are lines of the connection manager.
fn listener(settings: &str, filter: &str) -> String {
    let settings: String = settings.lines().map(|line| format!("      {line}\n")).collect();
    let filter = filter.replace('\n', "\n        ");
    format!(
        "static_resources:\n  listeners:\n    typed_config:\n      \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
         {settings}      http_filters:\n      - name: gateway\n        {filter}\n"
    )
}

const ONE_SPELLING: &str =
    "normalize_path: true\nmerge_slashes: true\npath_with_escaped_slashes_action: REJECT_REQUEST";
const BY_ECDS: &str = "config_discovery:\n  type_urls: [type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm]";
const ENDPOINTS: &str = "version: 1\nendpoints: [{name: a, path: /a}]";
const AT: &str = "static_resources.listeners.typed_config";

#[test]
fn a_listener_that_leaves_paths_as_they_come_is_refused_with_rules_about_paths() {
    check_lines(&listener(ONE_SPELLING, &wasm_struct(ENDPOINTS)), &[]);
    check_lines(
        &listener("", &wasm_struct(ENDPOINTS)),
        &[
            &format!("4: {AT}.merge_slashes: is not set, so `//path` passes by"),
            &format!("4: {AT}.normalize_path: is not set, so "),
            &format!("4: {AT}.path_with_escaped_slashes_action: is not set, so "),
        ],
    );
    check_lines(
        &listener(
            "normalize_path: false\nmergeSlashes: \"true\"\npath_with_escaped_slashes_action: KEEP_UNCHANGED",
            &wasm_struct(ENDPOINTS),
        ),
        &[
            &format!("5: {AT}.normalize_path: is false, so `/x/../public` passes by"),
            &format!("6: {AT}.mergeSlashes: is \"true\", so "),
            &format!("7: {AT}.path_with_escaped_slashes_action: is \"KEEP_UNCHANGED\", so "),
        ],
    );
    let camel = "normalizePath: yes\nmergeSlashes: on\npathWithEscapedSlashesAction: 4";
    check_lines(&listener(camel, &wasm_struct(ENDPOINTS)), &[]);
}

#[test]
fn each_rule_about_paths_counts_and_other_rules_and_filters_do_not() {
    let count = |filter: &str| check(&listener("", filter)).findings.len();
    let limit = "version: 1\nrate_limits: [{name: l, key: [], algorithm: token_bucket, requests: 1, per: 1s";
    assert_eq!(count(&wasm_struct(&format!("{limit}, match: {{paths: [/a]}}}}]"))), 3);
    assert_eq!(count(&wasm_struct(&format!("{limit}}}]"))), 0);
    let public = WITH_CLAIMS.replace("\"mode\"", "\"public\": [\"/health\"], \"mode\"");
    assert_eq!(count(&wasm_struct(&public)), 3);
    assert_eq!(count(&wasm_struct(WITH_CLAIMS)), 0);
    let other = wasm_struct(ENDPOINTS).replace("root_id: gateway", "root_id: pin");
    let beside = check_together(&[listener("", &other), ENDPOINTS.to_owned()]);
    assert_eq!(beside[0].findings, []);
}

#[test]
fn a_listener_that_gets_its_policy_by_ecds_is_checked_against_the_one_in_another_file() {
    let findings = |envoy: String, policy: &str| {
        let mut reports = check_together(&[envoy, policy.to_owned()]);
        assert_eq!(reports[1].findings, []);
        reports.remove(0).findings
    };
    let found = findings(listener("normalize_path: true", BY_ECDS), ENDPOINTS);
    let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [4, 4], "{found:?}");
    assert_eq!(findings(listener(ONE_SPELLING, BY_ECDS), ENDPOINTS), []);
    assert_eq!(findings(listener("", BY_ECDS), POLICY), []);
    let other = listener("", BY_ECDS).replace("name: gateway", "name: other");
    assert_eq!(findings(other, ENDPOINTS), []);
}

/// Listeners are judged by the policy that stands in them, not by that of a neighbour.
#[test]
fn a_listener_with_a_policy_of_its_own_is_checked_against_that() {
    let text = listener("", &wasm_struct(POLICY.trim_end()));
    let reports = check_together(&[text, ENDPOINTS.to_owned()]);
    assert_eq!(reports[0].findings, []);
}

const WITH_CLUSTERS: &str = r#"{"version": 1, "authentication": {"mode": "required", "jwt": {"providers": [{"name": "p", "issuer": "i", "audiences": ["a"], "algorithms": ["RS256"], "keys": {"jwks": {"cluster": "idp", "host": "idp.example", "path": "/jwks.json"}}}]}}, "circuit_breakers": {"services": {"auth": {}}}, "rate_limits": [{"name": "l", "key": [], "algorithm": "token_bucket", "requests": 1, "per": "1s", "match": {"services": ["samples"]}}], "sidecar": {"cluster": "gateway-sidecar", "token": {"env": "T"}}}"#;

/// Findings and warnings of an Envoy document with these clusters, beside the policy.
fn of_clusters(envoy: &str) -> (Vec<String>, Vec<String>) {
    let mut reports = check_together(&[envoy.to_owned(), WITH_CLUSTERS.to_owned()]);
    assert_eq!(reports[1].findings, []);
    let report = reports.remove(0);
    (report.findings.iter().map(ToString::to_string).collect(), report.warnings)
}

const OTHERS: &str = "  - name: auth\n  - name: samples\n  - {name: gateway-sidecar}\n";
const TLS: &str =
    "\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

#[test]
fn clusters_that_the_policy_names_must_be_there() {
    let (findings, warnings) = of_clusters("static_resources:\n  clusters:\n  - name: other\n");
    assert_eq!(findings.len(), 2, "{findings:#?}");
    for (finding, cluster) in findings.iter().zip(["`gateway-sidecar`", "`idp`"]) {
        assert!(finding.starts_with("2: static_resources.clusters: there is no "), "{finding}");
        assert!(finding.contains(cluster), "{finding}");
    }
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("`auth`, which the policy's circuit_breakers.services.auth"));
    assert!(warnings[1].contains("`samples`, which the policy's rate_limits[0].match.services"));
    // Where clusters come from elsewhere nothing can be said, nor of a file that has none to give.
    let discovered = "static_resources: {}\ndynamic_resources: {cds_config: {ads: {}}}\n";
    for silent in [discovered, "resources: []\n"] {
        assert_eq!(of_clusters(silent), (Vec::new(), Vec::new()), "{silent}");
    }
    let two = format!(
        "static_resources: {{}}\n---\nstatic_resources:\n  clusters:\n{OTHERS}  - name: idp\n"
    );
    assert_eq!(of_clusters(&two).0, Vec::<String>::new());
}

#[test]
fn keys_that_come_without_tls_or_without_a_check_deserve_a_word() {
    let with = |idp: &str| {
        let text = format!("static_resources:\n  clusters:\n{OTHERS}  - name: idp\n    {idp}\n");
        let (findings, warnings) = of_clusters(&text);
        assert_eq!(findings, Vec::<String>::new());
        warnings
    };
    let warnings = with("type: STRICT_DNS");
    assert!(warnings[0].starts_with("static_resources.clusters[3]: `idp` has no TLS"));
    let tls = |rest: &str| format!("transport_socket: {{typed_config: {{{TLS}{rest}}}}}");
    assert!(with(&tls(""))[0].contains("every certificate"));
    assert!(with(&tls(", common_tls_context: {alpn_protocols: [h2]}"))[0].contains("certificate"));
    let checked = ", common_tls_context: {validation_context: {trusted_ca: {filename: /ca}}}";
    assert_eq!(with(&tls(checked)), Vec::<String>::new());
    assert_eq!(with("transport_socket_matches: []"), Vec::<String>::new());
}

#[test]
fn keys_and_secrets_from_elsewhere_are_good_without_being_there() {
    for keys in [
        r#"["RS256"], "keys": {"jwks": {"cluster": "idp", "host": "h", "path": "/j"}}"#,
        r#"["ES256", "EdDSA"], "keys": {"jwks_file": "/run/secrets/jwks.json"}"#,
        r#"["HS512"], "keys": {"secret": {"file": "/run/secrets/key"}}"#,
    ] {
        let policy = format!(
            r#"{{"version": 1, "authentication": {{"mode": "required", "jwt": {{"providers": [{{"name": "p", "issuer": "i", "audiences": ["a"], "algorithms": {keys}}}]}}}}, "sidecar": {{"cluster": "s", "token": {{"env": "T"}}}}}}"#
        );
        check_lines(&policy, &[]);
    }
}
