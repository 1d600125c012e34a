"""Writes corpus.json: tokens made without our code, each with the verdict it deserves.

Needs Python 3.10 and `cryptography`. Run `python3 corpus.py > corpus.json`. Keys are new in every
run, verdicts are not. RFC vectors are written as the RFCs print them.
"""

import base64
import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

NOW = 1700000000
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ACCEPTED, MALFORMED, UNTRUSTED = "accepted", "malformed", "untrusted"
EXPIRED, EARLY, NO_KEYS = "expired", "not-yet-valid", "keys-unavailable"

SECRET = b"a secret of the corpus, long enough for HS256"
RSA = rsa.generate_private_key(65537, 2048)
RSA_2 = rsa.generate_private_key(65537, 3072)
EC = ec.generate_private_key(ec.SECP256R1())
EC_2 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())


# --- making tokens ------------------------------------------------------------------------------


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(value):
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, separators=(",", ":")).encode()


def es_raw(key, text, hash_=hashes.SHA256(), size=32):
    r, s = decode_dss_signature(key.sign(text, ec.ECDSA(hash_)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def mac(text, key=SECRET, hash_=hashlib.sha256):
    return hmac.new(key, text, hash_).digest()


def sign_rs(text, key=RSA, hash_=hashes.SHA256()):
    return key.sign(text, padding.PKCS1v15(), hash_)


def sign_ps(text, key=RSA):
    return key.sign(text, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def sign_es(text, key=EC):
    return es_raw(key, text)


def token_of_segments(header, payload, sign):
    signed = f"{header}.{payload}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def token(header, payload, sign=mac):
    return token_of_segments(b64(raw(header)), b64(raw(payload)), sign)


def claims(**more):
    base = {"iss": "https://i/", "aud": "me", "sub": "ada", "exp": NOW + 60}
    base.update(more)
    return {name: value for name, value in base.items() if value is not ...}


def payload_text(extra):
    """The base claims as text with more text before the closing brace."""
    return json.dumps(claims(), separators=(",", ":"))[:-1] + "," + extra + "}"


HS = {"alg": "HS256", "typ": "JWT"}
RS = {"alg": "RS256", "typ": "JWT", "kid": "r1"}
ES = {"alg": "ES256", "typ": "JWT", "kid": "e1"}


# --- keys and setups ----------------------------------------------------------------------------


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk_rsa(key, kid, **more):
    public = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "n": number(public.n), "e": number(public.e)} | more


def jwk_ec(key, kid, **more):
    public = key.public_key().public_numbers()
    x, y = (b64(part.to_bytes(32, "big")) for part in (public.x, public.y))
    return {"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y} | more


def without(key, *names):
    return {name: value for name, value in key.items() if name not in names}


def der(key):
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def provider(algorithms, keys, **more):
    base = {"issuer": "https://i/", "audiences": ["me"], "require_expiry": True}
    return base | {"algorithms": algorithms, "keys": keys} | more


def secret(value):
    return {"secret": b64(value)}


def jwks(*keys):
    return {"jwks": {"keys": list(keys)}}


def hs(**more):
    return {"providers": [provider(["HS256"], secret(SECRET), **more)]}


R1, E1 = jwk_rsa(RSA, "r1", use="sig", alg="RS256"), jwk_ec(EC, "e1", use="sig", alg="ES256")
RFC_HS_KEY = (
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
)
RFC_RSA_N = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4"
    "d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re"
    "xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxX"
    "FvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
)
RFC_EC_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
JOE = {"issuer": "joe", "audiences": []}

SETUPS = {
    "hs": hs(),
    "hs-skew": hs() | {"skew": 30},
    "hs-skew-huge": hs() | {"skew": 2**63},
    "hs-open": {
        "providers": [
            provider(["HS256"], secret(SECRET), issuer=None, audiences=[], require_expiry=False)
        ]
    },
    "hs-two-audiences": hs(audiences=["you", "me"]),
    "hs-hour": hs(max_lifetime=3600),
    "hs-hour-skew": hs(max_lifetime=3600) | {"skew": 30},
    "hs-hour-no-exp": hs(max_lifetime=3600, require_expiry=False),
    "hs-at": hs(typ="at+jwt"),
    "hs-subject": hs(require_subject=True),
    "hs-email": hs(subject_claim="email", require_subject=True),
    "hs-unknown": {"providers": [provider(["HS256"], secret(b""))]},
    "rs": {"providers": [provider(["RS256"], jwks(R1))]},
    "es": {"providers": [provider(["ES256"], jwks(E1))]},
    "both": {"providers": [provider(["RS256", "ES256"], jwks(R1, E1))]},
    "rs-only-of-both": {"providers": [provider(["RS256"], jwks(R1, E1))]},
    "rotating": {
        "providers": [provider(["RS256"], jwks(R1, jwk_rsa(RSA_2, "r2"), jwk_rsa(RSA, "r3")))]
    },
    "nameless": {"providers": [provider(["RS256"], jwks(without(R1, "kid")))]},
    "purposes": {
        "providers": [
            provider(
                ["RS256"],
                jwks(
                    jwk_rsa(RSA, "enc", use="enc"),
                    jwk_rsa(RSA, "wrap", key_ops=["wrapKey"]),
                    jwk_rsa(RSA, "ps", alg="PS256"),
                    jwk_rsa(RSA_2, "ok", key_ops=["sign", "verify"]),
                    {"kty": "OKP", "crv": "Ed25519", "kid": "okp", "x": "AAAA"},
                ),
            )
        ]
    },
    # One kid, two issuers, two keys; and an issuer with a secret beside them.
    "three": {
        "providers": [
            provider(["RS256"], jwks(jwk_rsa(RSA, "shared")), issuer="https://a/"),
            provider(["RS256"], jwks(jwk_rsa(RSA_2, "shared")), issuer="https://b/"),
            provider(["HS256"], secret(SECRET), issuer="https://c/"),
        ]
    },
    "rfc-hs": {"providers": [provider(["HS256"], {"secret": RFC_HS_KEY}, **JOE)]},
    "rfc-rs": {
        "providers": [
            provider(["RS256"], jwks({"kty": "RSA", "n": RFC_RSA_N, "e": "AQAB"}), **JOE)
        ]
    },
    "rfc-es": {"providers": [provider(["ES256"], jwks(RFC_EC_KEY), **JOE)]},
}

CASES = []


def case(group, name, setup, tok, want, now=NOW, **more):
    entry = {"group": group, "name": name, "setup": setup, "want": want}
    if isinstance(tok, bytes):
        entry["hex"] = tok.hex()
    else:
        entry["token"] = tok
    if now != NOW:
        entry["now"] = now
    CASES.append(entry | more)


# --- the groups ---------------------------------------------------------------------------------


def rfc():
    joe = (
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ"
    )
    a1 = (
        f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{joe}."
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    a2 = (
        f"eyJhbGciOiJSUzI1NiJ9.{joe}."
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W"
        "2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkS"
        "jtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv"
        "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    )
    a3 = (
        f"eyJhbGciOiJFUzI1NiJ9.{joe}."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    for name, setup, tok in (("A.1", "rfc-hs", a1), ("A.2", "rfc-rs", a2), ("A.3", "rfc-es", a3)):
        case("rfc7515", f"{name} before its exp", setup, tok, ACCEPTED, now=1300819379)
        case("rfc7515", f"{name} at its exp", setup, tok, EXPIRED, now=1300819380)
        case("rfc7515", f"{name} today", setup, tok, EXPIRED)
        other = (a3 if tok == a1 else a1).split(".")[2]
        mixed = ".".join([*tok.split(".")[:2], other])
        case("rfc7515", f"{name} other signature", setup, mixed, UNTRUSTED, now=1300819379)
    case("rfc7515", "A.5", "rfc-hs", f"eyJhbGciOiJub25lIn0.{joe}.", MALFORMED, now=1300819379)
    case("rfc7515", "A.6 JSON serialisation", "rfc-rs",
         json.dumps({"payload": joe, "signatures": []}), MALFORMED)
    case("rfc7515", "A.7 flattened", "rfc-es",
         json.dumps({"payload": joe, "protected": "eyJhbGciOiJFUzI1NiJ9", "signature": "DtEh"}),
         MALFORMED)
    case("rfc8037", "A.4", "es",
         "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09"
         "PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", MALFORMED)


def good():
    more = {"subject": "ada", "flip": True}
    case("good", "HS256", "hs", token(HS, claims()), ACCEPTED, **more)
    case("good", "RS256", "rs", token(RS, claims(), sign_rs), ACCEPTED, **more)
    case("good", "ES256", "es", token(ES, claims(), sign_es), ACCEPTED, **more)
    for extra in ("jku", "x5u"):
        head = RS | {extra: "https://evil.example/keys"}
        case("good", f"{extra} is not looked at", "rs", token(head, claims(), sign_rs), ACCEPTED)
    case("good", "x5c is not looked at", "rs", token(RS | {"x5c": ["AAAA"]}, claims(), sign_rs),
         ACCEPTED)
    for number in range(16):
        # r and s of all lengths of DER, with and without a sign byte.
        made = token(ES, claims(jti=str(number)), sign_es)
        case("good", f"ES256 {number}", "es", made, ACCEPTED, host=host_form(made))


def same_for_all():
    """Claims are judged alike whatever the algorithm, and whoever computes."""
    for kind, head, sign in (("hs", HS, mac), ("rs", RS, sign_rs), ("es", ES, sign_es)):
        for name, more, want in (
            ("iat and nbf", {"iat": NOW, "nbf": NOW - 5}, ACCEPTED),
            ("fractions", {"iat": NOW - 0.5, "nbf": 0.5, "exp": NOW + 0.5}, ACCEPTED),
            ("iat in the future", {"iat": NOW + 9}, EARLY), ("nbf 2^40", {"nbf": 2**40}, EARLY),
            ("expired", {"exp": NOW}, EXPIRED), ("exp 0", {"exp": 0}, EXPIRED),
            ("exp -1", {"exp": -1}, MALFORMED), ("iat -1", {"iat": -1}, MALFORMED),
            ("exp 2^64", {"exp": 2**64}, ACCEPTED), ("exp 1e300", {"exp": 1e300}, ACCEPTED),
            ("nonce", {"nonce": "n"}, ACCEPTED), ("nonce 1", {"nonce": 1}, MALFORMED),
            ("jti", {"jti": "j"}, ACCEPTED), ("claim kid", {"kid": "k"}, ACCEPTED),
            ("other claims", {"a": None, "b": [1, {"c": 1.5}], "\u00e9": "\U0001f600"}, ACCEPTED),
            ("aud", {"aud": "x"}, UNTRUSTED), ("aud []", {"aud": []}, UNTRUSTED),
            ("aud list", {"aud": ["x", "me"]}, ACCEPTED), ("iss", {"iss": "x"}, UNTRUSTED),
            ("no sub", {"sub": ...}, ACCEPTED), ("no exp", {"exp": ...}, UNTRUSTED),
        ):
            case("alike", f"{kind}: {name}", kind, token(head, claims(**more), sign), want)
        for name, more, want in (
            ("salt", {"salt": "AAAA"}, ACCEPTED), ("salt 1", {"salt": 1}, MALFORMED),
            ("x5t", {"x5t": "AAAA", "x5t#S256": "AAAA"}, ACCEPTED), ("cty", {"cty": "x"}, ACCEPTED),
            ("unknown member", {"x": {"y": [None]}}, ACCEPTED),
        ):
            case("alike", f"{kind}: {name}", kind, token(head | more, claims(), sign), want)


def host_form(made):
    """The DER signature that OpenSSL takes for a token's raw one."""
    signature = base64.urlsafe_b64decode(made.split(".")[2] + "==")
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    return encode_dss_signature(r, s).hex()


def alg():
    for name in ("none", "None", "nOnE", "NONE", "hs256", "HS256 ", " HS256", "", "HS384", "HS512",
                 "RS256", "ES256", "EdDSA", "HS256\u0000"):
        head = {"alg": name, "typ": "JWT"}
        made = token(head, claims())
        case("alg", f"{name!r} with a MAC", "hs", made, UNTRUSTED)
        case("alg", f"{name!r} trailing dot", "hs", made.rsplit(".", 1)[0] + ".", MALFORMED)
        case("alg", f"{name!r} no third part", "hs", made.rsplit(".", 1)[0], MALFORMED)
        case("alg", f"{name!r} to public keys", "both", token(head | {"kid": "r1"}, claims()),
             UNTRUSTED)
    for name, value in (("null", None), ("array", ["HS256"]), ("object", {}), ("number", 1),
                        ("true", True)):
        case("alg", name, "hs", token({"alg": value}, claims()), MALFORMED)
    case("alg", "missing", "hs", token({"typ": "JWT"}, claims()), MALFORMED)
    case("alg", "empty header", "hs", token({}, claims()), MALFORMED)
    case("alg", "HS384 over HS384", "hs",
         token({"alg": "HS384"}, claims(), lambda t: mac(t, SECRET, hashlib.sha384)), UNTRUSTED)
    case("alg", "HS256 over HS384", "hs",
         token(HS, claims(), lambda t: mac(t, SECRET, hashlib.sha384)), UNTRUSTED)
    case("alg", "HS512 cut to 32 bytes", "hs",
         token(HS, claims(), lambda t: mac(t, SECRET, hashlib.sha512)[:32]), UNTRUSTED)
    for name, key in (("blank", b""), ("other", b"x" * 32), ("upper-case", SECRET.upper()),
                      ("prefix", SECRET[:-1]), ("zero-terminated", SECRET + b"\0" * 20)):
        # HMAC pads keys with zeros: a zero-terminated one of at most 64 bytes is the same key.
        want = ACCEPTED if name == "zero-terminated" and len(SECRET) + 20 <= 64 else UNTRUSTED
        case("alg", f"{name} key", "hs", token(HS, claims(), lambda t, k=key: mac(t, k)), want)
    case("alg", "unknown secret", "hs-unknown", token(HS, claims()), NO_KEYS)
    case("alg", "unknown secret, blank key", "hs-unknown",
         token(HS, claims(), lambda t: mac(t, b"")), NO_KEYS)


def confusion():
    for kind, key, setup, kid in (("RSA", RSA, "rs", "r1"), ("EC", EC, "es", "e1")):
        for form, secret_ in (("PEM", pem(key)), ("PEM without newline", pem(key).rstrip()),
                              ("DER", der(key))):
            for head in ({"alg": "HS256"}, {"alg": "HS256", "kid": kid}):
                made = token(head, claims(), lambda t, s=secret_: mac(t, s))
                case("confusion", f"HS256 by {kind} {form} {sorted(head)}", setup, made, UNTRUSTED)
                case("confusion", f"HS256 by {kind} {form} {sorted(head)}, both", "both", made,
                     UNTRUSTED)
            made = token({"alg": "RS256" if kind == "RSA" else "ES256", "kid": kid}, claims(),
                         lambda t, s=secret_: mac(t, s))
            case("confusion", f"MAC by {kind} {form} under its own name", setup, made, UNTRUSTED)
    case("confusion", "PS256 called RS256", "rs", token(RS, claims(), sign_ps), UNTRUSTED)
    case("confusion", "PS256", "rs", token(RS | {"alg": "PS256"}, claims(), sign_ps), UNTRUSTED)
    case("confusion", "RS384 called RS256", "rs",
         token(RS, claims(), lambda t: sign_rs(t, hash_=hashes.SHA384())), UNTRUSTED)
    case("confusion", "RS256 called RS384", "rs",
         token(RS | {"alg": "RS384"}, claims(), sign_rs), UNTRUSTED)
    case("confusion", "RS256 by SHA-1", "rs",
         token(RS, claims(), lambda t: sign_rs(t, hash_=hashes.SHA1())), UNTRUSTED)
    case("confusion", "ES256 to an RSA kid", "both", token(ES | {"kid": "r1"}, claims(), sign_es),
         UNTRUSTED)
    case("confusion", "RS256 to an EC kid", "both", token(RS | {"kid": "e1"}, claims(), sign_rs),
         UNTRUSTED)
    case("confusion", "ES256 where only RS256 is listed", "rs-only-of-both",
         token(ES, claims(), sign_es), UNTRUSTED)
    case("confusion", "ES384 called ES256", "es",
         token(ES, claims(), lambda t: es_raw(P384, t, hashes.SHA384(), 48)), UNTRUSTED)
    jwk_attack = RS | {"jwk": without(jwk_rsa(RSA_2, "r1"), "kid")}
    case("confusion", "own key inside", "rs",
         token(jwk_attack, claims(), lambda t: sign_rs(t, RSA_2)), MALFORMED)
    case("confusion", "the right key inside", "rs",
         token(RS | {"jwk": R1}, claims(), sign_rs), MALFORMED)
    for extra in ("jku", "x5u"):
        head = RS | {extra: "http://127.0.0.1:1/keys"}
        case("confusion", f"own key by {extra}", "rs",
             token(head, claims(), lambda t: sign_rs(t, RSA_2)), UNTRUSTED)


def selection():
    case("selection", "both, RSA", "both", token(RS, claims(), sign_rs), ACCEPTED)
    case("selection", "both, EC", "both", token(ES, claims(), sign_es), ACCEPTED)
    case("selection", "no kid, one of its kind", "both",
         token(without(RS, "kid"), claims(), sign_rs), ACCEPTED)
    case("selection", "no kid, several", "rotating",
         token(without(RS, "kid"), claims(), sign_rs), UNTRUSTED)
    case("selection", "new key", "rotating",
         token(RS | {"kid": "r2"}, claims(), lambda t: sign_rs(t, RSA_2)), ACCEPTED)
    case("selection", "old key", "rotating", token(RS, claims(), sign_rs), ACCEPTED)
    case("selection", "kid of another key", "rotating",
         token(RS | {"kid": "r2"}, claims(), sign_rs), UNTRUSTED)
    for kid in ("r9", "R1", "r1 ", "", "../r1", "r1' or '1"):
        case("selection", f"kid {kid!r}", "rs", token(RS | {"kid": kid}, claims(), sign_rs),
             UNTRUSTED)
    case("selection", "a key without kid, a token without", "nameless",
         token(without(RS, "kid"), claims(), sign_rs), ACCEPTED)
    case("selection", "a key without kid, a token with one", "nameless",
         token(RS, claims(), sign_rs), UNTRUSTED)
    case("selection", "kid is nothing to a secret", "hs", token(HS | {"kid": "any"}, claims()),
         ACCEPTED)
    for kid in ("enc", "wrap", "ps", "okp"):
        case("selection", f"a key for {kid}", "purposes",
             token(RS | {"kid": kid}, claims(), sign_rs), UNTRUSTED)
    case("selection", "a key for verify", "purposes",
         token(RS | {"kid": "ok"}, claims(), lambda t: sign_rs(t, RSA_2)), ACCEPTED)
    case("selection", "no kid, one for verify", "purposes",
         token(without(RS, "kid"), claims(), lambda t: sign_rs(t, RSA_2)), ACCEPTED)
    shared = RS | {"kid": "shared"}
    for issuer, key, want in (("a", RSA, ACCEPTED), ("b", RSA_2, ACCEPTED), ("a", RSA_2, UNTRUSTED),
                              ("b", RSA, UNTRUSTED), ("c", RSA, UNTRUSTED), ("d", RSA, UNTRUSTED)):
        made = token(shared, claims(iss=f"https://{issuer}/"), lambda t, k=key: sign_rs(t, k))
        extra = {"provider": "abc".index(issuer)} if want == ACCEPTED else {}
        case("selection", f"issuer {issuer}, key of {key.key_size} bits", "three", made, want,
             **extra)
    for issuer, want in (("c", ACCEPTED), ("a", UNTRUSTED)):
        extra = {"provider": 2} if want == ACCEPTED else {}
        case("selection", f"a MAC from {issuer}", "three",
             token(HS, claims(iss=f"https://{issuer}/")), want, **extra)
    case("selection", "no issuer among three", "three", token(HS, claims(iss=...)), UNTRUSTED)


def header():
    def head(text, want=MALFORMED, name=None):
        case("header", name or repr(text), "hs", token(text, claims()), want)

    for text in ('["HS256"]', '["HS256",null,"kid1"]', '"HS256"', "null", "1", "",
                 '{"alg":"HS256"}x', '{"alg":"HS256"}{}', '{"alg":"HS256"}\0', '{"alg":"HS256",}',
                 "{'alg':'HS256'}", '\ufeff{"alg":"HS256"}', '{"alg":"HS256"', '{alg:"HS256"}',
                 '{"alg":"HS256","a":"\t"}', '{"alg":"HS256"}//'):
        head(text)
    for text in (' { "alg" : "HS256" } ', '\r\n{"alg":"HS256"}\n\t', '{"\\u0061lg":"HS256"}',
                 '{"alg":"\\u0048S256"}', '{"alg":"HS256","x":{"deep":[1,2,{"a":null}]}}'):
        head(text, ACCEPTED)
    for text in ('"alg":"HS256","alg":"HS256"', '"alg":"none","alg":"HS256"',
                 '"alg":"HS256","\\u0061lg":"none"', '"alg":"HS256","kid":"a","kid":"a"',
                 '"alg":"HS256","x":1,"x":1', '"alg":"HS256","x":{"y":1,"y":2}',
                 '"alg":"HS256","x":[{"y":1,"\\u0079":2}]'):
        head("{" + text + "}", name=f"twice: {text}")
    head(b'{"alg":"HS256","x":"\xff"}', name="invalid UTF-8")
    head(b'{"alg":"HS256","x":"\xc0\xaf"}', name="overlong UTF-8")
    head(b'{"alg":"HS256","x":"\xed\xa0\x80"}', name="a surrogate in UTF-8")
    head('{"alg":"HS256"}'.encode("utf-16-le"), name="UTF-16")
    head('{"alg":"HS256","x":"\\ud800"}', name="a lone surrogate")
    for name in ("kid", "typ", "cty", "jku", "x5u", "x5t", "x5t#S256"):
        for value in (1, None, True, ["JWT"], {}):
            head(HS | {name: value}, name=f"{name} is {json.dumps(value)}")
    for value in ("AAAA", None, [1], {}):
        head(HS | {"x5c": value}, name=f"x5c is {json.dumps(value)}")
    for value in ([], "exp", None, ["x"], ["exp"], ["alg"], ["b64"], {}, [[]], ["HS256"]):
        head(HS | {"crit": value}, name=f"crit is {json.dumps(value)}")
    head(HS | {"crit": ["b64"], "b64": True}, name="crit b64 true")
    head(HS | {"crit": ["b64"], "b64": False}, name="crit b64 false")
    head(HS | {"crit": ["x"], "x": 1}, name="crit with its member")
    for value in (True, False, None, "false"):
        head(HS | {"b64": value}, name=f"b64 is {json.dumps(value)}")
    signed = b64(raw(HS | {"b64": False, "crit": ["b64"]})) + "."
    body = json.dumps(claims(), separators=(",", ":"))
    case("header", "b64 false, unencoded payload", "hs",
         f"{signed}{body}.{b64(mac((signed + body).encode()))}", MALFORMED)
    for value in ("DEF", None):
        head(HS | {"zip": value}, name=f"zip is {value}")
    for value in ("JWT", "jwt", "application/jwt", "APPLICATION/JWT"):
        head(HS | {"cty": value}, name=f"cty is {value}")
    head(HS | {"cty": "json"}, ACCEPTED, name="cty is json")
    head(HS | {"x": "a" * 2900}, ACCEPTED, name="a long header")
    head(HS | {"x": "a" * 3100}, MALFORMED, name="a header above 4 KiB")
    for typ, any_, pinned in (
        (None, ACCEPTED, UNTRUSTED), ("JWT", ACCEPTED, UNTRUSTED), ("jwt", ACCEPTED, UNTRUSTED),
        ("application/jwt", ACCEPTED, UNTRUSTED), ("at+jwt", ACCEPTED, ACCEPTED),
        ("AT+JWT", ACCEPTED, ACCEPTED), ("application/at+jwt", ACCEPTED, ACCEPTED),
        ("Application/At+JWT", ACCEPTED, ACCEPTED), ("JOSE", UNTRUSTED, UNTRUSTED),
        ("JOSE+JSON", UNTRUSTED, UNTRUSTED), ("", UNTRUSTED, UNTRUSTED),
        ("application/", UNTRUSTED, UNTRUSTED),
        ("application/application/jwt", UNTRUSTED, UNTRUSTED),
        ("dpop+jwt", UNTRUSTED, UNTRUSTED), ("logout+jwt", UNTRUSTED, UNTRUSTED),
        ("jwt ", UNTRUSTED, UNTRUSTED), ("applic\u00e4tion/jwt", UNTRUSTED, UNTRUSTED),
    ):
        made = without(HS, "typ") | ({} if typ is None else {"typ": typ})
        case("typ", f"{typ!r}", "hs", token(made, claims()), any_)
        case("typ", f"{typ!r} where at+jwt is asked", "hs-at", token(made, claims()), pinned)
        made = RS | {"typ": typ} if typ is not None else without(RS, "typ")
        case("typ", f"{typ!r} RS256", "rs", token(made, claims(), sign_rs), any_)


def compact():
    good = token(HS, claims())
    head, body, sig = good.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def bad(name, text, want=MALFORMED):
        case("compact", name, "hs", text, want)

    bad("empty", "")
    for text in (" ", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "null"):
        bad(repr(text), text)
    for name, char in (("space", " "), ("newline", "\n"), ("CRLF", "\r\n"), ("tab", "\t"),
                       ("NUL", "\0"), ("no-break space", "\u00a0")):
        bad(f"{name} before", char + good)
        bad(f"{name} after", good + char)
        for at in (len(head) // 2, len(head) + 9, len(good) - 9):
            bad(f"{name} inside at {at}", good[:at] + char + good[at:])
        part = body[:8] + char + body[8:]
        bad(f"{name} inside, signed so", token_of_segments(head, part, mac))
    bad("no signature", f"{head}.{body}")
    bad("empty signature", f"{head}.{body}.")
    bad("empty header", f".{body}.{sig}")
    bad("empty payload", f"{head}..{sig}")
    bad("empty payload, signed so", token_of_segments(head, "", mac))
    bad("leading dot", "." + good)
    bad("trailing dot", good + ".")
    bad("double dot", f"{head}..{body}.{sig}")
    bad("four parts", f"{good}.{sig}")
    bad("five parts", f"{head}.{body}.{sig}.{sig}.{sig}")
    bad("JWE", f"{b64(raw({'alg': 'dir', 'enc': 'A256GCM'}))}..{sig[:16]}.{body}.{sig[:22]}")
    bad("cut by one", good[:-1])
    bad("cut by two", good[:-2])
    for name, other in (("cut to 30 bytes", lambda t: mac(t)[:30]),
                        ("one byte more", lambda t: mac(t) + bytes(1))):
        bad(name, token_of_segments(head, body, other), UNTRUSTED)
    bad("one letter more", good + "A", UNTRUSTED)
    bad("padded signature", good + "=")
    bad("padded payload", token_of_segments(head, body + "=" * (-len(body) % 4 or 4), mac))
    bad("padded header", token_of_segments(head + "=" * (-len(head) % 4 or 4), body, mac))
    last = alphabet.index(sig[-1])
    for bits in (1, 2, 3):
        bad(f"unused bits {bits}", good[:-1] + alphabet[last | bits])
    for pad in range(3):
        odd = b64(raw(claims(x="a" * pad)))
        if len(odd) % 4:
            spare = alphabet.index(odd[-1]) | 1
            bad(f"unused bits in a payload signed so {pad}",
                token_of_segments(head, odd[:-1] + alphabet[spare], mac))
    plain = base64.b64encode(raw(claims(x="~~~???>>>"))).decode().rstrip("=")
    assert "+" in plain or "/" in plain
    bad("standard alphabet", token_of_segments(head, plain, mac))
    case("compact", "the same in base64url", "hs",
         token_of_segments(head, plain.replace("+", "-").replace("/", "_"), mac), ACCEPTED)
    bad("length 1 modulo 4", token_of_segments(head, "A" * 5, mac))
    bad("not ASCII", good + "\u00e9")
    case("compact", "not UTF-8", "hs", good.encode() + b"\xff", MALFORMED)
    case("compact", "not UTF-8 inside", "hs", good[:30].encode() + b"\xc3" + good[30:].encode(),
         MALFORMED)
    bad("with its scheme", "Bearer " + good)
    bad("quoted", f'"{good}"')
    bad("two with a comma", f"{good},{good}")
    case("compact", "as long as allowed", "hs", long_token(16 * 1024), ACCEPTED)
    case("compact", "one letter too long", "hs", long_token(16 * 1024 + 1), MALFORMED)


def long_token(length):
    fill = 11000
    while True:
        made = token(HS, claims(x="a" * fill))
        if len(made) == length:
            return made
        if len(made) > length:
            # Not every length exists: the header's length shifts it by one.
            head = HS | {"x": "b" * (len(made) % 3)}
            for less in range(12):
                for pad in range(6):
                    made = token(head | {"x": "b" * pad}, claims(x="a" * (fill - less)))
                    if len(made) == length:
                        return made
            raise ValueError(length)
        fill += max(1, (length - len(made)) * 3 // 4 - 4)


def payload():
    def bad(name, text, want=MALFORMED):
        case("payload", name, "hs-open", token(HS, text), want)

    for text in ("[]", "null", '"claims"', "1", "true", " ", "{", "}", "{}{}", "{} x", "{}\0",
                 "{},", '{"exp":NaN}', '{"exp":Infinity}', '{"exp":-Infinity}', '{"exp":1e400}',
                 '{"x":1e400}', '{"x":-1e400}', '{"exp":0x7fffffff}', '{"exp":01700000060}',
                 '{"exp":+1700000060}', '{"exp":1700000060.}', '{"exp":.5}', '{"exp":1700000060L}',
                 '{"exp":1_700_000_060}', '{"x":"\\ud800"}', '{"x":"\\udc00"}',
                 '{"x":"\\ud800\\u0041"}', '{"x":"\\x41"}', '{"x":"a\nb"}', "{'sub':'ada'}",
                 '{"sub":"ada",}', '{"a":[1,]}', '{"a"}', '{a:1}', '{"a":1 "b":2}', '{"a":tru}',
                 '{/* x */"a":1}', '{"a":1}//x', '\ufeff{}', '{"\\ud800":1}', "eyJ"):
        bad(repr(text), text)
    for text in ("{}", " {}\n", '{"x":1e-400}', '{"x":-0}', '{"x":"\\ud83d\\ude00"}', '{"":1}',
                 '{"x":1E5}', '{"x":123456789012345678901234567890}'):
        bad(f"fine: {text!r}", text, ACCEPTED)
    bad("invalid UTF-8", b'{"x":"\xff"}')
    bad("invalid UTF-8 in a name", b'{"\xff":1}')
    bad("overlong UTF-8", b'{"x":"\xc0\x80"}')
    bad("UTF-16", "{}".encode("utf-16"))
    bad("latin-1", '{"x":"\u00e9"}'.encode("latin-1"))
    bad("compressed", bytes.fromhex("789cabae0500017500f9"))
    for depth, want in ((31, ACCEPTED), (32, MALFORMED), (200, MALFORMED), (2500, MALFORMED)):
        bad(f"{depth} arrays in the object", '{"x":' + "[" * depth + "]" * depth + "}", want)
    for depth, want in ((31, ACCEPTED), (32, MALFORMED), (900, MALFORMED)):
        bad(f"{depth} objects in the object", '{"x":' * depth + "{}" + "}" * depth, want)
    bad("5000 arrays, never closed", '{"x":' + "[" * 5000)
    for name, value in (("sub", '"eve"'), ("exp", "9999999999"), ("role", '"admin"'),
                        ("iss", '"https://i/"'), ("aud", '"me"')):
        first = f'"{name}":{value}'
        bad(f"twice: {name}", "{" + first + "," + first + "}")
        bad(f"twice, escaped: {name}",
            "{" + first + f',"\\u{ord(name[0]):04x}{name[1:]}":{value}' + "}")
    bad("twice, apart", payload_text('"role":"user","x":1,"role":"admin"'))
    bad("twice, deeper", payload_text('"org":{"role":"user","role":"admin"}'))
    bad("twice, in an array", payload_text('"orgs":[{"a":1},{"a":1,"a":2}]'))
    bad("same name in two objects", payload_text('"a":{"x":1},"b":{"x":1}'), ACCEPTED)
    for name in ("sub", "jti", "iss", "nonce", "kid"):
        for value in (1, None, True, ["ada"], {}, 1.5):
            bad(f"{name} is {json.dumps(value)}", claims(**{name: value}))
    for value in (1, None, True, {}, {"me": 1}, ["me", 1], ["me", None], [["me"]], [None]):
        bad(f"aud is {json.dumps(value)}", claims(aud=value))
    nested = token(HS, claims())
    bad("a token as payload", nested)
    bad("a token as payload, as a string", json.dumps(nested))
    case("payload", "no claim at all", "hs", token(HS, "{}"), UNTRUSTED)


def times():
    def at(name, want, setup="hs", now=NOW, **more):
        case("time", name, setup, token(HS, claims(**more)), want, now=now)

    def text(name, extra, want):
        body = json.dumps(claims(exp=...), separators=(",", ":"))[:-1] + "," + extra + "}"
        case("time", name, "hs", token(HS, body), want)

    for name, exp, want in (
        ("T", NOW, EXPIRED), ("T+1", NOW + 1, ACCEPTED), ("T-1", NOW - 1, EXPIRED),
        ("T+0.5", NOW + 0.5, ACCEPTED), ("T-0.5", NOW - 0.5, EXPIRED), ("0", 0, EXPIRED),
        ("1e10", 10**10, ACCEPTED), ("2^31", 2**31, ACCEPTED), ("2^32", 2**32, ACCEPTED),
        ("9999999999", 9999999999, ACCEPTED), ("2^53+1", 2**53 + 1, ACCEPTED),
        ("2^63", 2**63, ACCEPTED), ("2^64-1", 2**64 - 1, ACCEPTED), ("2^64", 2**64, ACCEPTED),
        ("2^64+T-1", 2**64 + NOW - 1, ACCEPTED), ("2^34", 2**34, ACCEPTED),
        ("in milliseconds", NOW * 1000, ACCEPTED), ("-1", -1, MALFORMED),
        ("-2^63", -(2**63), MALFORMED), ("-2^64", -(2**64), MALFORMED), ("-5.5", -5.5, MALFORMED),
        ("string", str(NOW + 60), MALFORMED), ("null", None, MALFORMED), ("true", True, MALFORMED),
        ("array", [NOW + 60], MALFORMED), ("object", {}, MALFORMED), ("missing", ..., UNTRUSTED),
        ("empty", "", MALFORMED), ("a date", "2033-05-18T03:33:20Z", MALFORMED),
    ):
        at(f"exp {name}", want, exp=exp)
    text("exp 1e300", '"exp":1e300', ACCEPTED)
    text("exp -1e300", '"exp":-1e300', MALFORMED)
    text("exp 1.7e9", '"exp":1.7e9', EXPIRED)
    text("exp 1.70000006e9", '"exp":1.70000006e9', ACCEPTED)
    text("exp 0.0", '"exp":0.0', EXPIRED)
    text("exp -0", '"exp":-0', EXPIRED)
    text("exp 1e-400", '"exp":1e-400', EXPIRED)
    text("exp under another name", f'"Exp":{NOW + 60}', UNTRUSTED)
    for field in ("nbf", "iat"):
        for name, value, want in (
            ("T", NOW, ACCEPTED), ("T+1", NOW + 1, EARLY), ("T+0.5", NOW + 0.5, EARLY),
            ("T-0.5", NOW - 0.5, ACCEPTED), ("0", 0, ACCEPTED), ("2^32+1", 2**32 + 1, EARLY),
            ("2^64", 2**64, EARLY), ("2^63", 2**63, EARLY), ("2^34", 2**34, EARLY),
            ("18446744073", 18446744073, EARLY), ("18446744074", 18446744074, EARLY),
            ("1e300", 1e300, EARLY), ("in milliseconds", NOW * 1000, EARLY), ("-1", -1, MALFORMED),
            ("string", str(NOW), MALFORMED), ("null", None, MALFORMED), ("true", True, MALFORMED),
            ("array", [NOW], MALFORMED),
        ):
            at(f"{field} {name}", want, **{field: value})
    for name, more, want in (
        ("exp T-29", {"exp": NOW - 29}, ACCEPTED), ("exp T-29.5", {"exp": NOW - 29.5}, ACCEPTED),
        ("exp T-30", {"exp": NOW - 30}, EXPIRED), ("exp T-30.5", {"exp": NOW - 30.5}, EXPIRED),
        ("exp 0", {"exp": 0}, EXPIRED), ("exp 2^64-1", {"exp": 2**64 - 1}, ACCEPTED),
        ("nbf T+30", {"nbf": NOW + 30}, ACCEPTED), ("nbf T+30.5", {"nbf": NOW + 30.5}, EARLY),
        ("nbf T+31", {"nbf": NOW + 31}, EARLY), ("iat T+30", {"iat": NOW + 30}, ACCEPTED),
        ("iat T+31", {"iat": NOW + 31}, EARLY),
    ):
        at(f"skew 30: {name}", want, "hs-skew", **more)
    at("skew above the clock: exp 0", ACCEPTED, "hs-skew-huge", exp=0)
    at("skew above the clock: nbf 2^33", ACCEPTED, "hs-skew-huge", nbf=2**33)
    at("clock at zero, skew 30: exp 1", ACCEPTED, "hs-skew", now=0, exp=1)
    at("clock at zero, skew 30: nbf 30", ACCEPTED, "hs-skew", now=0, exp=99, nbf=30)
    at("clock at zero, skew 30: nbf 31", EARLY, "hs-skew", now=0, exp=99, nbf=31)
    for name, setup, more, want in (
        ("exp - iat = 1 h", "hs-hour", {"iat": NOW - 60, "exp": NOW + 3540}, ACCEPTED),
        ("exp - iat = 1 h + 1", "hs-hour", {"iat": NOW - 60, "exp": NOW + 3541}, UNTRUSTED),
        ("exp - iat = 1 h + 0.5", "hs-hour", {"iat": NOW - 60, "exp": NOW + 3540.5}, UNTRUSTED),
        ("old and long", "hs-hour", {"iat": NOW - 9000, "exp": NOW + 1}, UNTRUSTED),
        ("no iat, 1 h left", "hs-hour", {"exp": NOW + 3600}, ACCEPTED),
        ("no iat, 1 h + 1 left", "hs-hour", {"exp": NOW + 3601}, UNTRUSTED),
        ("milliseconds", "hs-hour", {"exp": NOW * 1000}, UNTRUSTED),
        ("milliseconds with iat", "hs-hour", {"exp": NOW * 1000, "iat": NOW}, UNTRUSTED),
        ("skew, no iat, 1 h + 30", "hs-hour-skew", {"exp": NOW + 3630}, ACCEPTED),
        ("skew, no iat, 1 h + 31", "hs-hour-skew", {"exp": NOW + 3631}, UNTRUSTED),
        ("skew, iat, 1 h + 1", "hs-hour-skew", {"iat": NOW, "exp": NOW + 3601}, UNTRUSTED),
        ("no exp", "hs-hour-no-exp", {"iat": NOW, "exp": ...}, UNTRUSTED),
        ("iat after exp", "hs-hour-skew", {"iat": NOW + 20, "exp": NOW + 10}, ACCEPTED),
    ):
        at(f"1 h: {name}", want, setup, **more)
    case("time", "no exp where none is asked", "hs-open", token(HS, claims(exp=...)), ACCEPTED)
    case("time", "expired where no exp is asked", "hs-open", token(HS, claims(exp=NOW)), EXPIRED)


def meant_for_us():
    def iss(name, value, want=UNTRUSTED):
        case("iss", name, "hs", token(HS, claims(iss=value)), want)

    def aud(name, value, want=UNTRUSTED, setup="hs"):
        case("aud", name, setup, token(HS, claims(aud=value)), want)

    for value in ("https://i", "https://I/", "HTTPS://i/", "http://i/", "https://i//", "i",
                  "https://i/x", "xhttps://i/", " https://i/", "https://i/ ", "", "https://i/\0",
                  "https://i/?", "https://\uff49/", "https://i/,https://i/"):
        iss(repr(value), value)
    iss("missing", ...)
    case("iss", "null", "hs", token(HS, claims(iss=None)), MALFORMED)
    case("iss", "array", "hs", token(HS, claims(iss=["https://i/"])), MALFORMED)
    body = json.dumps(claims(), separators=(",", ":")).replace("https://i/", "https:\\/\\/i\\/")
    case("iss", "escaped slashes", "hs", token(HS, body), ACCEPTED)
    case("iss", "any issuer where none is stated", "hs-open", token(HS, claims(iss="x")), ACCEPTED)
    case("iss", "no issuer where none is stated", "hs-open", token(HS, claims(iss=...)), ACCEPTED)
    case("iss", "wrong issuer, expired", "hs", token(HS, claims(iss="x", exp=1)), UNTRUSTED)

    for value in ("Me", "ME", "m", "mee", "me ", " me", "me you", "me,you", "", "\uff4d\uff45",
                  "me\0", "https://me", "me/", [], ["you"], ["m", "e"], ["ME"], [""], ["me,you"]):
        aud(repr(value), value)
    for value in (["me"], ["you", "me"], ["me", "you"], ["me", "me"]):
        aud(repr(value), value, ACCEPTED)
    aud("missing", ...)
    for value, want in (("you", ACCEPTED), ("me", ACCEPTED), (["x", "you"], ACCEPTED),
                        ("youme", UNTRUSTED), ("x", UNTRUSTED)):
        aud(f"one of two: {value!r}", value, want, "hs-two-audiences")
    aud("any audience where none is stated", "x", ACCEPTED, "hs-open")
    aud("no audience where none is stated", ..., ACCEPTED, "hs-open")

    def sub(name, setup, more, want, **extra):
        case("sub", name, setup, token(HS, claims(**more)), want, **extra)

    sub("none", "hs", {"sub": ...}, ACCEPTED, subject=None)
    sub("empty", "hs", {"sub": ""}, ACCEPTED, subject=None)
    sub("none where one is asked", "hs-subject", {"sub": ...}, UNTRUSTED)
    sub("empty where one is asked", "hs-subject", {"sub": ""}, UNTRUSTED)
    sub("some where one is asked", "hs-subject", {}, ACCEPTED, subject="ada")
    sub("another claim", "hs-email", {"email": "a@b"}, ACCEPTED, subject="a@b")
    sub("another claim, missing", "hs-email", {}, UNTRUSTED)
    sub("another claim, a number", "hs-email", {"email": 7}, MALFORMED)
    sub("another claim, null", "hs-email", {"email": None}, MALFORMED)


def forged():
    """No verdict on the claims of a token that is not genuine."""
    wrong = b"not the secret of this corpus, but long"
    for name, more in (("expired", {"exp": 1}), ("too early", {"nbf": 2**33}),
                       ("aud", {"aud": "x"}), ("no exp", {"exp": ...}), ("plain", {})):
        case("forged", name, "hs", token(HS, claims(**more), lambda t: mac(t, wrong)), UNTRUSTED)
    good = token(RS, claims(), sign_rs)
    body = b64(raw(claims(sub="root")))
    head, _, sig = good.split(".")
    case("forged", "claims exchanged", "rs", f"{head}.{body}.{sig}", UNTRUSTED)
    head = b64(raw(RS | {"x": 1}))
    case("forged", "header exchanged", "rs", ".".join([head, *good.split(".")[1:]]), UNTRUSTED)


def rsa_signatures():
    signed = f"{b64(raw(RS))}.{b64(raw(claims()))}"
    public = RSA.public_key().public_numbers()
    sig = sign_rs(signed.encode())
    value = int.from_bytes(sig, "big")

    def rs(name, data):
        # What is wrong by its form alone is not even shown to the host.
        form = len(data) != 256 or int.from_bytes(data, "big") >= public.n
        case("rsa", name, "rs", f"{signed}.{b64(data)}", UNTRUSTED, form=form)

    rs("zero", bytes(256))
    rs("one", (1).to_bytes(256, "big"))
    rs("n", public.n.to_bytes(256, "big"))
    rs("n - 1", (public.n - 1).to_bytes(256, "big"))
    rs("n - s", (public.n - value).to_bytes(256, "big"))
    if value + public.n < 1 << 2048:
        rs("s + n", (value + public.n).to_bytes(256, "big"))
    rs("s + n in 257 bytes", (value + public.n).to_bytes(257, "big"))
    rs("a zero before", b"\0" + sig)
    rs("a zero after", sig + b"\0")
    rs("cut", sig[:-1])
    rs("without its first byte", sig[1:])
    rs("one byte", b"\1")
    rs("of another key", sign_rs(signed.encode(), RSA_2))
    private = RSA.private_numbers()
    digest = hashlib.sha256(signed.encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420")
    no_null = bytes.fromhex("302f300b0609608648016503040201" + "0420")

    def padded(name, block, want=UNTRUSTED):
        made = pow(int.from_bytes(block, "big"), private.d, public.n).to_bytes(256, "big")
        case("rsa", name, "rs", f"{signed}.{b64(made)}", want)

    def block(tail, first=b"\0\1", fill=b"\xff", stop=b"\0"):
        return first + fill * (256 - len(first) - len(stop) - len(tail)) + stop + tail

    padded("the right padding", block(info + digest), ACCEPTED)
    padded("no NULL", block(no_null + digest))
    padded("bare digest", block(digest))
    padded("block type 2", block(info + digest, first=b"\0\2"))
    padded("block type 0", block(info + digest, first=b"\0\0"))
    padded("first byte 1", block(info + digest, first=b"\1\1"))
    padded("other filling", block(info + digest, fill=b"\xfe"))
    padded("no stop", block(info + digest, stop=b"\xff"))
    padded("short filling, garbage behind",
           (b"\0\1" + b"\xff" * 8 + b"\0" + info + digest).ljust(256, b"\0"))
    padded("short filling, garbage before the stop",
           b"\0\1" + b"\xff" * 8 + b"\0" * (256 - 10 - len(info) - 32) + info + digest)
    padded("SHA-384's name", block(bytes.fromhex("3041300d060960864801650304020205000430")
                                   + digest + bytes(16)))
    padded("long form of a length", block(bytes.fromhex("308131300d060960864801650304020105000420")
                                          + digest))
    padded("digest of nothing", block(info + hashlib.sha256(b"").digest()))


def ec_signatures():
    signed = f"{b64(raw(ES))}.{b64(raw(claims()))}"
    der_form = EC.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der_form)

    def pair(r, s, size=32):
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def es(name, data, want=UNTRUSTED):
        numbers = (int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big"))
        form = len(data) != 64 or not all(0 < number < ORDER for number in numbers)
        case("ecdsa", name, "es", f"{signed}.{b64(data)}", want, form=form)

    es("as it is", pair(r, s), ACCEPTED)
    es("the twin", pair(r, ORDER - s), ACCEPTED)
    for name, values in (("0, 0", (0, 0)), ("0, s", (0, s)), ("r, 0", (r, 0)), ("n, s", (ORDER, s)),
                         ("r, n", (r, ORDER)), ("n, n", (ORDER, ORDER)), ("1, 1", (1, 1)),
                         ("n-1, n-1", (ORDER - 1, ORDER - 1)), ("1, 0", (1, 0)), ("0, 1", (0, 1)),
                         ("s, r", (s, r)), ("n-r, s", (ORDER - r, s)), ("r, r", (r, r)),
                         ("all ones", (2**256 - 1, 2**256 - 1)), ("n+1, s", (ORDER + 1, s)),
                         ("r, n+1", (r, ORDER + 1))):
        es(name, pair(*values))
    es("DER", der_form)
    es("63 bytes", pair(r, s)[:-1])
    es("65 bytes", pair(r, s) + b"\0")
    es("33 + 33", pair(r, s, 33))
    es("48 + 48", pair(r, s, 48))
    es("r alone", pair(r, s)[:32])
    es("one byte", b"\0")
    es("of another key", es_raw(EC_2, signed.encode()))
    es("by SHA-384", es_raw(EC, signed.encode(), hashes.SHA384()))
    # Small r and s give short DER integers; nobody can sign so, but they must be written right.
    for small in (1, 127, 128, 255, 256, 2**247, 2**248 - 1):
        made = f"{signed}.{b64(pair(small, s))}"
        case("ecdsa", f"small r {small:x}", "es", made, UNTRUSTED, host=host_form(made))


def key_mistakes():
    """Sets that must be refused when the policy is read, with the path of the mistake."""
    at = "authentication.jwt.providers[0].keys.jwks_inline.keys"
    small = rsa.generate_private_key(65537, 1024)
    odd = rsa.generate_private_key(3, 2048)
    big = {"kty": "RSA", "kid": "big", "n": number((1 << 4096) + 1), "e": "AQAB"}
    private = {"d": number(RSA.private_numbers().d)}
    n = R1["n"]
    x, y = (base64.urlsafe_b64decode(E1[part] + "=") for part in "xy")
    oct_key = {"kty": "oct", "kid": "o", "k": b64(SECRET)}
    found = [
        ("1024 bits", [jwk_rsa(small, "a")], [f"{at}[0].n"]),
        ("above 4096 bits", [big], [f"{at}[0].n"]),
        ("exponent 3", [jwk_rsa(odd, "a")], [f"{at}[0].e"]),
        ("exponent 1", [R1 | {"e": "AQ"}], [f"{at}[0].e"]),
        ("exponent with a zero", [R1 | {"e": "AAEAAQ"}], [f"{at}[0].e"]),
        ("even modulus", [R1 | {"n": number(RSA.public_key().public_numbers().n - 1)}],
         [f"{at}[0].n"]),
        ("a zero before n", [R1 | {"n": b64(b"\0" + base64.urlsafe_b64decode(n + "=="))}],
         [f"{at}[0].n"]),
        ("padded n", [R1 | {"n": n + "=="}], [f"{at}[0].n"]),
        ("n is a number", [R1 | {"n": 7}], [f"{at}[0].n"]),
        ("no n, no e", [without(R1, "n", "e")], [f"{at}[0].n", f"{at}[0].e"]),
        ("private", [R1 | private], [f"{at}[0].d"]),
        ("private EC", [E1 | {"d": "AAAA"}], [f"{at}[0].d"]),
        ("private, for encryption", [R1, jwk_rsa(RSA, "x", use="enc", **private)], [f"{at}[1].d"]),
        ("secret", [oct_key], [f"{at}[0].kty"]),
        ("secret among public keys", [R1, oct_key], [f"{at}[1].kty"]),
        ("off the curve", [E1 | {"x": b64(bytes([x[0] ^ 1]) + x[1:])}], [f"{at}[0].x"]),
        ("the point at infinity", [E1 | {"x": b64(bytes(32)), "y": b64(bytes(32))}],
         [f"{at}[0].x"]),
        ("31 bytes of x", [E1 | {"x": b64(x[1:])}], [f"{at}[0].x"]),
        ("33 bytes of x", [E1 | {"x": b64(b"\0" + x)}], [f"{at}[0].x"]),
        ("31 and 33 bytes, which together would do",
         [E1 | {"x": b64(x[:31]), "y": b64(x[31:] + y)}], [f"{at}[0].x", f"{at}[0].y"]),
        ("no y", [without(E1, "y")], [f"{at}[0].y"]),
        ("no crv", [without(E1, "crv")], [f"{at}[0].crv"]),
        ("no kty", [without(R1, "kty")], [f"{at}[0].kty"]),
        ("kty is a number", [R1 | {"kty": 1}], [f"{at}[0].kty"]),
        ("kid is a number", [R1 | {"kid": 1}], [f"{at}[0].kid"]),
        ("kid is null", [R1 | {"kid": None}], [f"{at}[0].kid"]),
        ("use is a list", [R1 | {"use": ["sig"]}], [f"{at}[0].use"]),
        ("alg is null", [R1 | {"alg": None}], [f"{at}[0].alg"]),
        ("key_ops is a string", [R1 | {"key_ops": "verify"}], [f"{at}[0].key_ops"]),
        ("kid twice", [R1, jwk_rsa(RSA_2, "r1")], [f"{at}[1].kid"]),
        ("kid twice, two kinds", [R1, jwk_ec(EC, "r1")], [f"{at}[1].kid"]),
        ("two mistakes", [jwk_rsa(small, "a"), R1, jwk_rsa(odd, "b")],
         [f"{at}[0].n", f"{at}[2].e"]),
        ("not an object", ["key"], [f"{at}[0]"]),
        ("empty", [], [at]),
        ("only for encryption", [R1 | {"use": "enc"}], [at]),
        ("only for signing", [R1 | {"key_ops": ["sign"]}], [at]),
        ("only for PS256", [R1 | {"alg": "PS256"}], [at]),
        ("only P-384", [E1 | {"crv": "P-384"}], [at]),
        ("alg of another kind", [E1 | {"alg": "RS256"}], [at]),
        ("only unknown", [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}], [at]),
        ("65 keys", [jwk_rsa(RSA, f"k{i}") for i in range(65)], [at]),
    ]
    return [{"name": name, "keys": keys, "paths": paths} for name, keys, paths in found]


for group in (rfc, good, same_for_all, alg, confusion, selection, header, compact, payload, times,
              meant_for_us, forged, rsa_signatures, ec_signatures):
    group()

spki = [{"jwk": R1, "der": der(RSA).hex()}, {"jwk": jwk_rsa(RSA_2, "r2"), "der": der(RSA_2).hex()},
        {"jwk": E1, "der": der(EC).hex()}]
head = {"about": "Written by corpus.py; do not edit.", "now": NOW, "setups": SETUPS, "spki": spki,
        "key_mistakes": key_mistakes()}
out = sys.stdout
out.write(json.dumps(head)[:-1] + ',\n"cases": [\n')
out.write(",\n".join(json.dumps(entry) for entry in CASES))
out.write("\n]}\n")
print(len(CASES), "cases", file=sys.stderr)
