"""Writes corpus.json: tokens made without our code, each with the verdict it deserves.

Needs Python 3.10 and `cryptography`. Run `python3 corpus.py > corpus.json`. Keys are new in every
run, verdicts are not. RFC vectors are written as the RFCs print them.

What corpus.json holds, for whoever reads it (the unit tests, the fuzzers, the tests on real Envoy):

now       the clock of the corpus, in seconds
setups    by name: the settings that tokens are judged with; each can be one policy
            skew       clock_skew in seconds; 0 when it is not there
            policy     false: no policy can say this (for unit tests only); true when not there
            providers  in order; issuers differ within a setup
              issuer, audiences, algorithms, require_expiry
              keys     {"secret": base64url of its bytes} or {"jwks": a JWK Set to be used inline}
              subject_claim, require_subject, typ, max_lifetime (in seconds): when not the default
cases     one token each
            group, name   together unique
            setup      the name of its setup
            token      the text, or instead
            hex        its bytes, when they are no UTF-8
            want       accepted, malformed, untrusted, expired, not-yet-valid or keys-unavailable
            now        the clock to judge at, when it is not that of the corpus
            clock      "any": the verdict is the same at the clock of the corpus and at every present
                       time up to the year 2100, so the token can be sent to a running gateway;
                       "fixed": it holds at the stated clock only
            kind       the algorithm that it is about, when it is about one
            provider   which one of the setup accepts it; 0 when it is not there
            subject    the subject that is found (null: none), where this is what is tested
            flip       true: a token of which no change may be accepted
            form       true: a signature whose form alone is wrong
            host       the DER signature (hex) that the host must be given
          Tokens with control characters, blanks at their ends or other than ASCII cannot stand in a
          header; some are longer than common limits. Whoever sends them has to choose.
spki      public keys as OpenSSL writes them
key_mistakes  sets that a policy must not hold: name, algorithms, keys, and the paths of the mistakes
sets      sets that are handed over: name, algorithms, text (or hex), and either error, or used,
          for_others and left_out (the paths of what is wrong)
"""

import base64
import hashlib
import hmac
import json
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

NOW = 1700000000
FAR = 4102444800  # the year 2100
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ORDER_384 = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
ORDER_ED = 2**252 + 27742317777372353535851937790883648493
ACCEPTED, MALFORMED, UNTRUSTED = "accepted", "malformed", "untrusted"
EXPIRED, EARLY, NO_KEYS = "expired", "not-yet-valid", "keys-unavailable"

# Each setup has its own, so that no token of one is good in another by accident.
SECRET = b"a secret of the corpus, long enough for HS256"
SECRET_384 = b"another secret of the corpus, which is long enough for HS384"
SECRET_512 = b"the longest secret of the corpus, which is even long enough for HS512"
SECRET_RULES = b"the secret of the setup called rules, as long as all three algorithms want"
SECRET_SKEW = b"the secret of the setup whose clock is not exact"
SECRET_OPEN = b"the secret of the setup that takes any issuer"
RSA = rsa.generate_private_key(65537, 2048)
RSA_2 = rsa.generate_private_key(65537, 3072)
EC = ec.generate_private_key(ec.SECP256R1())
EC_2 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P384_2 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
ED_2 = ed25519.Ed25519PrivateKey.generate()
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
HMACS = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


# --- making tokens ------------------------------------------------------------------------------


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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


def sign_ps(text, key=RSA, hash_=hashes.SHA256(), salt=None, mask=None):
    salt = hash_.digest_size if salt is None else salt
    return key.sign(text, padding.PSS(padding.MGF1(mask or hash_), salt), hash_)


def sign_es(text, key=EC):
    return es_raw(key, text)


def by(alg, key):
    """What signs with that algorithm and key; the key is bytes for HMAC."""
    bits = alg[2:]
    if alg.startswith("HS"):
        return lambda text: mac(text, key, HMACS[bits])
    if alg.startswith("RS"):
        return lambda text: sign_rs(text, key, HASHES[bits])
    if alg.startswith("PS"):
        return lambda text: sign_ps(text, key, HASHES[bits])
    if alg == "ES256":
        return lambda text: es_raw(key, text)
    if alg == "ES384":
        return lambda text: es_raw(key, text, hashes.SHA384(), 48)
    return key.sign


def token_of_segments(header, payload, sign):
    signed = f"{header}.{payload}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def token(header, payload, sign=mac):
    return token_of_segments(b64(raw(header)), b64(raw(payload)), sign)


def claims(to="hs", **more):
    """The claims of a good token for that provider."""
    base = {"iss": ISSUERS[to], "aud": "me", "sub": "ada", "exp": FAR}
    base.update(more)
    return {name: value for name, value in base.items() if value is not ...}


def payload_text(extra):
    """The base claims as text with more text before the closing brace."""
    return json.dumps(claims(), separators=(",", ":"))[:-1] + "," + extra + "}"


# --- keys and setups ----------------------------------------------------------------------------


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk_rsa(key, kid, **more):
    public = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "n": number(public.n), "e": number(public.e)} | more


def jwk_ec(key, kid, **more):
    public, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
    x, y = (b64(part.to_bytes(size, "big")) for part in (public.x, public.y))
    return {"kty": "EC", "crv": f"P-{key.key_size}", "kid": kid, "x": x, "y": y} | more


def jwk_ed(key, kid, **more):
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(ed_bytes(key))} | more


def ed_bytes(key):
    return key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )


def jwk(key, kid, **more):
    made = {rsa.RSAPrivateKey: jwk_rsa, ec.EllipticCurvePrivateKey: jwk_ec,
            ed25519.Ed25519PrivateKey: jwk_ed}
    return next(make for kind, make in made.items() if isinstance(key, kind))(key, kid, **more)


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


def secret(value):
    return {"secret": b64(value)}


def jwks(*keys):
    return {"jwks": {"keys": list(keys)}}


SETUPS = {}  # what is written
PLACES = {}  # provider -> its setup
ISSUERS = {}  # provider -> its issuer


def place(setup, name, algorithms, keys, issuer=None, **more):
    """A provider of a setup; `name` is how this file calls it."""
    base = {"issuer": issuer or f"https://{name}/", "audiences": ["me"], "require_expiry": True}
    made = base | {"algorithms": algorithms, "keys": keys} | more
    SETUPS.setdefault(setup, {"providers": []})["providers"].append(made)
    PLACES[name], ISSUERS[name] = setup, made["issuer"]


class Kind:
    """An algorithm with its own provider of the setup `algorithms`."""

    def __init__(self, alg, key, other, issuer=None):
        self.alg, self.key, self.other = alg, key, other
        self.name = "hs" if alg == "HS256" else alg.lower()
        self.head = {"alg": alg, "typ": "JWT"}
        if isinstance(key, bytes):
            keys = secret(key)
        else:
            self.kid = f"{self.name}-key"
            self.head["kid"] = self.kid
            keys = jwks(jwk(key, self.kid, use="sig", alg=alg))
        place("algorithms", self.name, [alg], keys, issuer)

    def sign(self, text):
        return by(self.alg, self.key)(text)

    def token(self, head=None, sign=None, **more):
        head = self.head | (head or {})
        head = {name: value for name, value in head.items() if value is not ...}
        return token(head, claims(self.name, **more), sign or self.sign)


KINDS = [
    Kind("HS256", SECRET, b"not the secret of this corpus, but long", "https://i/"),
    Kind("HS384", SECRET_384, SECRET_512), Kind("HS512", SECRET_512, SECRET_384 * 2),
    Kind("RS256", RSA, RSA_2), Kind("RS384", RSA, RSA_2), Kind("RS512", RSA, RSA_2),
    Kind("PS256", RSA, RSA_2), Kind("PS384", RSA, RSA_2), Kind("PS512", RSA, RSA_2),
    Kind("ES256", EC, EC_2), Kind("ES384", P384, P384_2), Kind("EdDSA", ED, ED_2),
]
OF = {kind.alg: kind for kind in KINDS}
PUBLIC = [kind.alg for kind in KINDS if not isinstance(kind.key, bytes)]
HS, RS, ES, ES384, ED_HEAD = (OF[alg].head for alg in ("HS256", "RS256", "ES256", "ES384", "EdDSA"))
R1, E1, E3, D1 = (jwk(OF[alg].key, OF[alg].kid, use="sig", alg=alg)
                  for alg in ("RS256", "ES256", "ES384", "EdDSA"))

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
RFC_ED_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

place("rules", "mixed", ["HS256", "HS384", "HS512"], secret(SECRET_RULES))
place("rules", "every", PUBLIC,
      jwks(jwk(RSA, "a"), jwk(EC, "b"), jwk(P384, "c"), jwk(ED, "d")))
place("rules", "rs-only", ["RS256"], jwks(jwk(RSA, "r1"), jwk(EC, "e1"), jwk(ED, "d1")))
place("rules", "rotating", ["RS256"], jwks(jwk(RSA, "r1"), jwk(RSA_2, "r2"), jwk(RSA, "r3")))
place("rules", "nameless", ["RS256", "ES256"], jwks(without(R1, "kid")))
place("rules", "purposes", ["RS256", "PS256", "ES384", "EdDSA"], jwks(
    jwk(RSA, "enc", use="enc"), jwk(RSA, "wrap", key_ops=["wrapKey"]),
    jwk(RSA, "ps", alg="PS256"), jwk(RSA_2, "ok", key_ops=["sign", "verify"], alg="RS256"),
    jwk(ED_2, "ed", alg="Ed25519"), jwk(P384, "es", alg="ES256"),
    {"kty": "OKP", "crv": "X25519", "kid": "okp", "x": "AAAA"},
    {"kty": "EC", "crv": "secp256k1", "kid": "k1", "x": "AAAA", "y": "AAAA"},
))
# One kid, two issuers, two keys; and an issuer with a secret beside them.
place("rules", "a", ["RS256"], jwks(jwk(RSA, "shared")))
place("rules", "b", ["RS256"], jwks(jwk(RSA_2, "shared")))
for _name, _more in (
    ("c", {}), ("two-audiences", {"audiences": ["you", "me"]}), ("hour", {"max_lifetime": 3600}),
    ("hour-no-exp", {"max_lifetime": 3600, "require_expiry": False}), ("at", {"typ": "at+jwt"}),
    ("subject", {"require_subject": True}),
    ("email", {"subject_claim": "email", "require_subject": True}),
):
    place("rules", _name, ["HS256"], secret(SECRET_RULES), **_more)
place("skew", "skew", ["HS256"], secret(SECRET_SKEW))
place("skew", "hour-skew", ["HS256"], secret(SECRET_SKEW), max_lifetime=3600)
place("open", "open", ["HS256"], secret(SECRET_OPEN), audiences=[], require_expiry=False)
place("rfc-hs", "rfc-hs", ["HS256"], {"secret": RFC_HS_KEY}, "joe", audiences=[])
place("rfc-rs", "rfc-rs", ["RS256"], jwks({"kty": "RSA", "n": RFC_RSA_N, "e": "AQAB"}), "joe",
      audiences=[])
place("rfc-es", "rfc-es", ["ES256", "EdDSA"], jwks(RFC_EC_KEY, RFC_ED_KEY), "joe", audiences=[])
place("huge", "huge", ["HS256"], secret(SECRET_SKEW + b", which is huge"))
place("unknown", "unknown", ["HS256"], secret(b""))
SETUPS["skew"]["skew"] = 30
SETUPS["open"]["providers"][0]["issuer"] = None
SETUPS["huge"] |= {"skew": 2**63, "policy": False}
SETUPS["unknown"]["policy"] = False

CASES = []


def clock(setup, tok, want, now):
    """Whether a verdict holds at any present time as well."""
    if now != NOW or SETUPS[setup].get("policy") is False:
        return "fixed"
    if want == MALFORMED or isinstance(tok, bytes):
        return "any"
    try:
        body = json.loads(unb64(tok.split(".")[1]))
    except (ValueError, IndexError):
        return "any"
    skew = SETUPS[setup].get("skew", 0)
    times = {name: body.get(name) for name in ("exp", "nbf", "iat")}
    for name, time in times.items():
        if not isinstance(time, (int, float)) or isinstance(time, bool):
            continue
        reached = time <= (NOW - skew if name == "exp" else NOW + skew)
        if not reached and time < FAR + skew:
            return "fixed"
    return "any"


def case(group, name, to, tok, want, now=NOW, **more):
    setup = PLACES[to]
    entry = {"group": group, "name": name, "setup": setup, "want": want}
    if isinstance(tok, bytes):
        entry["hex"] = tok.hex()
    else:
        entry["token"] = tok
    if now != NOW:
        entry["now"] = now
    entry["clock"] = clock(setup, tok, want, now)
    if want == ACCEPTED:
        issuers = [provider["issuer"] for provider in SETUPS[setup]["providers"]]
        if issuers.index(None if to == "open" else ISSUERS[to]):
            entry["provider"] = issuers.index(ISSUERS[to])
    CASES.append(entry | more)


def rules(to, head=None, sign=None, **more):
    """A token for an HS256 provider of the setup `rules`."""
    return token(head or HS, claims(to, **more), sign or (lambda t: mac(t, SECRET_RULES)))


def skewed(to="skew", **more):
    return token(HS, claims(to, **more), lambda t: mac(t, SECRET_SKEW))


def opened(payload):
    return token(HS, payload, lambda t: mac(t, SECRET_OPEN))


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
        case("rfc7515", f"{name} before its exp", setup, tok, ACCEPTED, now=1300819379, flip=True)
        case("rfc7515", f"{name} at its exp", setup, tok, EXPIRED, now=1300819380)
        case("rfc7515", f"{name} today", setup, tok, EXPIRED)
        other = (a3 if tok == a1 else a1).split(".")[2]
        mixed = ".".join([*tok.split(".")[:2], other])
        case("rfc7515", f"{name} other signature", setup, mixed, UNTRUSTED)
    case("rfc7515", "A.4 ES512, not JSON", "rfc-es",
         "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKP"
         "WROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iK"
         "vU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn", MALFORMED)
    case("rfc7515", "A.5", "rfc-hs", f"eyJhbGciOiJub25lIn0.{joe}.", MALFORMED)
    case("rfc7515", "A.6 JSON serialisation", "rfc-rs",
         json.dumps({"payload": joe, "signatures": []}), MALFORMED)
    case("rfc7515", "A.7 flattened", "rfc-es",
         json.dumps({"payload": joe, "protected": "eyJhbGciOiJFUzI1NiJ9", "signature": "DtEh"}),
         MALFORMED)
    case("rfc8037", "A.4, not JSON", "rfc-es",
         "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09"
         "PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", MALFORMED)
    # Of RFC 7520 the payload is prose: the figures show that it is refused whoever signed it.
    frodo = (
        "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAg"
        "b250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dp"
        "bmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
    )
    case("rfc7520", "figure 13, not JSON", "rfc-rs",
         f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{frodo}."
         "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83"
         "xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJ"
         "Dt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12"
         "podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
         MALFORMED)
    case("rfc7520", "figure 35, not JSON", "rfc-hs",
         "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9."
         f"{frodo}.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0", MALFORMED)


def good():
    more = {"subject": "ada", "flip": True}
    for kind in KINDS:
        extra = {"kind": kind.alg}
        made = kind.token()
        if kind.alg.startswith("ES"):
            extra["host"] = host_form(made)
        case("good", kind.alg, kind.name, made, ACCEPTED, **extra, **more)
    for kind in (OF["RS256"], OF["EdDSA"]):
        for name in ("jku", "x5u"):
            made = kind.token({name: "https://evil.example/keys"})
            case("good", f"{kind.alg}: {name} is not looked at", kind.name, made, ACCEPTED)
        case("good", f"{kind.alg}: x5c is not looked at", kind.name,
             kind.token({"x5c": ["AAAA"]}), ACCEPTED)
    for kind in (OF["ES256"], OF["ES384"]):
        for count in range(12):
            # r and s of all lengths of DER, with and without a sign byte.
            made = kind.token(jti=str(count))
            case("good", f"{kind.alg} {count}", kind.name, made, ACCEPTED, host=host_form(made))


def same_for_all():
    """Claims are judged alike whatever the algorithm, and whoever computes."""
    for kind in KINDS:
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
            ("iss of another", {"iss": "https://rotating/"}, UNTRUSTED),
            ("no sub", {"sub": ...}, ACCEPTED), ("no exp", {"exp": ...}, UNTRUSTED),
        ):
            case("alike", f"{kind.alg}: {name}", kind.name, kind.token(**more), want)
        for name, more, want in (
            ("salt", {"salt": "AAAA"}, ACCEPTED), ("salt 1", {"salt": 1}, MALFORMED),
            ("x5t", {"x5t": "AAAA", "x5t#S256": "AAAA"}, ACCEPTED), ("cty", {"cty": "x"}, ACCEPTED),
            ("cty JWT", {"cty": "JWT"}, MALFORMED), ("crit", {"crit": ["exp"]}, MALFORMED),
            ("b64", {"b64": False}, MALFORMED), ("own key", {"jwk": {"kty": "oct"}}, MALFORMED),
            ("unknown member", {"x": {"y": [None]}}, ACCEPTED), ("no typ", {"typ": ...}, ACCEPTED),
            ("at+jwt", {"typ": "at+jwt"}, ACCEPTED), ("typ JOSE", {"typ": "JOSE"}, UNTRUSTED),
            ("kid 1", {"kid": 1}, MALFORMED), ("kid null", {"kid": None}, MALFORMED),
        ):
            case("alike", f"{kind.alg}: head: {name}", kind.name, kind.token(more), want)


def host_form(made):
    """The DER signature that OpenSSL takes for a token's raw one."""
    signature = unb64(made.split(".")[2])
    half = len(signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    return encode_dss_signature(r, s).hex()


def alg():
    for name in ("none", "None", "nOnE", "NONE", "hs256", "HS256 ", " HS256", "", "HS384", "HS512",
                 "RS256", "ES256", "EdDSA", "HS256\u0000"):
        head = {"alg": name, "typ": "JWT"}
        made = token(head, claims())
        case("alg", f"{name!r} with a MAC", "hs", made, UNTRUSTED)
        case("alg", f"{name!r} trailing dot", "hs", made.rsplit(".", 1)[0] + ".", MALFORMED)
        case("alg", f"{name!r} no third part", "hs", made.rsplit(".", 1)[0], MALFORMED)
        made = token(head | {"kid": "a"}, claims("every"))
        if name != "HS256":
            case("alg", f"{name!r} to public keys", "every", made, UNTRUSTED)
    for kind in KINDS:
        for name in ("none", "None", "nOnE", "NONE"):
            made = kind.token({"alg": name})
            case("alg", f"{kind.alg}: {name} with its signature", kind.name, made, UNTRUSTED)
            made = kind.token({"alg": name}).rsplit(".", 1)[0] + "."
            case("alg", f"{kind.alg}: {name} without", kind.name, made, MALFORMED)
        for name in (kind.alg.lower(), kind.alg + " ", kind.alg + "\u0000", kind.alg[:-1]):
            if name != kind.alg:
                case("alg", f"{kind.alg}: {name!r}", kind.name, kind.token({"alg": name}), UNTRUSTED)
        case("alg", f"{kind.alg}: blank key", kind.name,
             kind.token({"alg": "HS256"}, lambda t: mac(t, b"")), UNTRUSTED)
        case("alg", f"{kind.alg}: empty signature", kind.name,
             kind.token().rsplit(".", 1)[0] + ".", MALFORMED)
        case("alg", f"{kind.alg}: zeros", kind.name,
             kind.token(sign=lambda t, k=kind: bytes(len(k.sign(t)))), UNTRUSTED)
        case("alg", f"{kind.alg}: of another key", kind.name,
             kind.token(sign=by(kind.alg, kind.other)), UNTRUSTED)
    for name in ("Ed25519", "Ed448", "ed25519"):
        case("alg", f"EdDSA by the name {name}", "eddsa", OF["EdDSA"].token({"alg": name}),
             UNTRUSTED)
    for name, value in (("null", None), ("array", ["HS256"]), ("object", {}), ("number", 1),
                        ("true", True)):
        case("alg", name, "hs", token({"alg": value}, claims()), MALFORMED)
    case("alg", "missing", "hs", token({"typ": "JWT"}, claims()), MALFORMED)
    case("alg", "empty header", "hs", token({}, claims()), MALFORMED)
    case("alg", "HS512 cut to 32 bytes", "hs",
         token(HS, claims(), lambda t: mac(t, SECRET, hashlib.sha512)[:32]), UNTRUSTED)
    for name, key in (("blank", b""), ("other", b"x" * 32), ("upper-case", SECRET.upper()),
                      ("prefix", SECRET[:-1]), ("zero-terminated", SECRET + b"\0" * 19)):
        # HMAC pads keys with zeros: a zero-terminated one of at most 64 bytes is the same key.
        assert len(SECRET) + 19 <= 64
        want = ACCEPTED if name == "zero-terminated" else UNTRUSTED
        case("alg", f"{name} key", "hs", token(HS, claims(), lambda t, k=key: mac(t, k)), want)
    case("alg", "unknown secret", "unknown", token(HS, claims("unknown")), NO_KEYS)
    case("alg", "unknown secret, blank key", "unknown",
         token(HS, claims("unknown"), lambda t: mac(t, b"")), NO_KEYS)


def confusion():
    # One algorithm's signature under another's name, at the provider of either.
    families = (("HS256", "HS384", "HS512"),
                ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
    for family in families:
        for kind in (OF[name] for name in family):
            for other in family:
                if other != kind.alg:
                    made = kind.token(sign=by(other, kind.key))
                    case("confusion", f"{other} called {kind.alg}", kind.name, made, UNTRUSTED)
                    made = kind.token({"alg": other}, by(other, kind.key))
                    case("confusion", f"{other} where {kind.alg} is listed", kind.name, made,
                         UNTRUSTED)
    for name, other in (("ES256", "ES384"), ("ES384", "ES256"), ("RS256", "ES256"),
                        ("ES256", "RS256"), ("EdDSA", "ES256"), ("ES256", "EdDSA"),
                        ("EdDSA", "HS512"), ("PS256", "EdDSA")):
        kind, signer = OF[name], by(other, OF[other].key)
        case("confusion", f"{other} called {name}", kind.name, kind.token(sign=signer), UNTRUSTED)
        made = kind.token({"alg": other}, signer)
        case("confusion", f"{other} where {name} is listed", kind.name, made, UNTRUSTED)
    case("confusion", "ES256 with SHA-384", "es256",
         OF["ES256"].token(sign=lambda t: es_raw(EC, t, hashes.SHA384())), UNTRUSTED)
    case("confusion", "ES384 with SHA-256", "es384",
         OF["ES384"].token(sign=lambda t: es_raw(P384, t, hashes.SHA256(), 48)), UNTRUSTED)
    # A public key as an HMAC secret.
    for name in PUBLIC:
        kind = OF[name]
        forms = [("PEM", pem(kind.key)), ("PEM without newline", pem(kind.key).rstrip()),
                 ("DER", der(kind.key)), ("JWK", raw(jwk(kind.key, kind.kid)))]
        if name == "EdDSA":
            forms.append(("its bytes", ed_bytes(kind.key)))
        for form, data in forms:
            for mac_alg in ("HS256", "HS384", "HS512"):
                signer = by(mac_alg, data)
                made = kind.token({"alg": mac_alg}, signer)
                case("confusion", f"{mac_alg} by {name} {form}", kind.name, made, UNTRUSTED)
            made = kind.token({"alg": "HS256", "kid": ...}, by("HS256", data))
            case("confusion", f"HS256 by {name} {form}, no kid", kind.name, made, UNTRUSTED)
            made = kind.token(sign=by("HS256", data))
            case("confusion", f"MAC by {name} {form} under its own name", kind.name, made,
                 UNTRUSTED)
    case("confusion", "HS256 by RSA PEM where every algorithm is listed", "every",
         token({"alg": "HS256", "kid": "a"}, claims("every"), lambda t: mac(t, pem(RSA))),
         UNTRUSTED)
    case("confusion", "RS256 by SHA-1", "rs256",
         OF["RS256"].token(sign=lambda t: sign_rs(t, hash_=hashes.SHA1())), UNTRUSTED)
    every = {"RS256": "a", "PS256": "a", "ES256": "b", "ES384": "c", "EdDSA": "d"}
    for name, own in every.items():
        for kid in "abcd":
            if kid != own:
                made = token({"alg": name, "kid": kid}, claims("every"), OF[name].sign)
                case("confusion", f"{name} to kid {kid}", "every", made, UNTRUSTED)
    for name, kid in (("ES256", "e1"), ("EdDSA", "d1"), ("RS384", "r1"), ("PS256", "r1")):
        made = token({"alg": name, "kid": kid}, claims("rs-only"), OF[name].sign)
        case("confusion", f"{name} where only RS256 is listed", "rs-only", made, UNTRUSTED)
    for name in ("RS256", "ES256", "EdDSA"):
        kind = OF[name]
        own = without(jwk(kind.other, kind.kid), "kid")
        case("confusion", f"{name}: own key inside", kind.name,
             kind.token({"jwk": own}, by(name, kind.other)), MALFORMED)
        case("confusion", f"{name}: the right key inside", kind.name,
             kind.token({"jwk": jwk(kind.key, kind.kid)}), MALFORMED)
        for extra in ("jku", "x5u"):
            made = kind.token({extra: "http://127.0.0.1:1/keys"}, by(name, kind.other))
            case("confusion", f"{name}: own key by {extra}", kind.name, made, UNTRUSTED)
        made = kind.token({"x5c": [base64.b64encode(der(kind.other)).decode()]},
                          by(name, kind.other))
        case("confusion", f"{name}: own key by x5c", kind.name, made, UNTRUSTED)


def selection():
    def at(name, to, alg_, kid, want, key=None, **more):
        head = {"alg": alg_, "typ": "JWT"} | ({} if kid is None else {"kid": kid})
        made = token(head, claims(to, **more), by(alg_, key or OF[alg_].key))
        case("selection", name, to, made, want)

    # A key without `alg` serves what is listed of its kind.
    every = {"a": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "b": ("ES256",),
             "c": ("ES384",), "d": ("EdDSA",)}
    for kid, names in every.items():
        for name in names:
            at(f"every: {name}", "every", name, kid, ACCEPTED)
            at(f"every: {name}, no kid, one of its kind", "every", name, None, ACCEPTED)
            at(f"every: {name}, unknown kid", "every", name, "z", UNTRUSTED)
    for name in ("HS256", "HS384", "HS512"):
        made = token({"alg": name}, claims("mixed"), by(name, SECRET_RULES))
        case("selection", f"a secret for three: {name}", "mixed", made, ACCEPTED)
        for other in ("HS256", "HS384", "HS512"):
            if name != other:
                made = token({"alg": name}, claims("mixed"), by(other, SECRET_RULES))
                case("selection", f"a secret for three: {other} called {name}", "mixed", made,
                     UNTRUSTED)
    at("no kid, several", "rotating", "RS256", None, UNTRUSTED)
    at("new key", "rotating", "RS256", "r2", ACCEPTED, RSA_2)
    at("old key", "rotating", "RS256", "r1", ACCEPTED)
    at("new key, expired", "rotating", "RS256", "r2", EXPIRED, RSA_2, exp=1)
    at("new key, for somebody else", "rotating", "RS256", "r2", UNTRUSTED, RSA_2, aud="you")
    at("kid of another key", "rotating", "RS256", "r2", UNTRUSTED)
    for kid in ("r9", "R1", "r1 ", "", "../r1", "r1' or '1", "r1\0"):
        at(f"kid {kid!r}", "rotating", "RS256", kid, UNTRUSTED)
    at("a key without kid, a token without", "nameless", "RS256", None, ACCEPTED)
    at("a key without kid, a token with one", "nameless", "RS256", "r1", UNTRUSTED)
    at("a key without kid, a token with an empty one", "nameless", "RS256", "", UNTRUSTED)
    at("a listed algorithm without a key", "nameless", "ES256", None, UNTRUSTED)
    case("selection", "kid is nothing to a secret", "hs", token(HS | {"kid": "any"}, claims()),
         ACCEPTED)
    for kid in ("enc", "wrap", "ps", "okp", "k1"):
        at(f"a key for {kid}", "purposes", "RS256", kid, UNTRUSTED)
    at("a key for PS256", "purposes", "PS256", "ps", ACCEPTED)
    at("a key for verify", "purposes", "RS256", "ok", ACCEPTED, RSA_2)
    at("a key for RS256 by PS256", "purposes", "PS256", "ok", UNTRUSTED, RSA_2)
    at("a key for encryption by PS256", "purposes", "PS256", "enc", UNTRUSTED)
    at("no kid, one for verify", "purposes", "RS256", None, ACCEPTED, RSA_2)
    at("a key that calls itself Ed25519", "purposes", "EdDSA", "ed", ACCEPTED, ED_2)
    at("a key on P-384 that calls itself ES256", "purposes", "ES384", "es", UNTRUSTED)
    at("a key on P-384 that calls itself ES256, no kid", "purposes", "ES384", None, UNTRUSTED)
    for issuer, key, want in (("a", RSA, ACCEPTED), ("b", RSA_2, ACCEPTED), ("a", RSA_2, UNTRUSTED),
                              ("b", RSA, UNTRUSTED), ("c", RSA, UNTRUSTED)):
        at(f"issuer {issuer}, key of {key.key_size} bits", issuer, "RS256", "shared", want, key)
    at("an issuer that nobody knows", "a", "RS256", "shared", UNTRUSTED, iss="https://d/")
    at("no issuer among several", "a", "RS256", "shared", UNTRUSTED, iss=...)
    case("selection", "a MAC from c", "c", rules("c"), ACCEPTED)
    case("selection", "a MAC from a", "a", rules("a"), UNTRUSTED)


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
        case("typ", f"{typ!r} where at+jwt is asked", "at", rules("at", made), pinned)
        for kind in (OF["RS256"], OF["EdDSA"]):
            made = kind.token({"typ": typ if typ is not None else ...})
            case("typ", f"{typ!r} {kind.alg}", kind.name, made, any_)


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
        case("payload", name, "open", opened(text), want)

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
    for depth, want in ((31, ACCEPTED), (32, MALFORMED), (200, MALFORMED), (5000, MALFORMED)):
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
    def at(name, want, to="hs", now=NOW, **more):
        make = {"algorithms": OF["HS256"].token, "rules": lambda **m: rules(to, **m),
                "skew": lambda **m: skewed(to, **m), "huge": huge}[PLACES[to]]
        case("time", name, to, make(**more), want, now=now)

    def huge(**more):
        return token(HS, claims("huge", **more), lambda t: mac(t, SECRET_SKEW + b", which is huge"))

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
        at(f"skew 30: {name}", want, "skew", **more)
    at("skew above the clock: exp 0", ACCEPTED, "huge", exp=0)
    at("skew above the clock: nbf 2^33", ACCEPTED, "huge", nbf=2**33)
    at("clock at zero, skew 30: exp 1", ACCEPTED, "skew", now=0, exp=1)
    at("clock at zero, skew 30: nbf 30", ACCEPTED, "skew", now=0, exp=99, nbf=30)
    at("clock at zero, skew 30: nbf 31", EARLY, "skew", now=0, exp=99, nbf=31)
    for name, setup, more, want in (
        ("exp - iat = 1 h", "hour", {"iat": NOW - 60, "exp": NOW + 3540}, ACCEPTED),
        ("exp - iat = 1 h + 1", "hour", {"iat": NOW - 60, "exp": NOW + 3541}, UNTRUSTED),
        ("exp - iat = 1 h + 0.5", "hour", {"iat": NOW - 60, "exp": NOW + 3540.5}, UNTRUSTED),
        ("old and long", "hour", {"iat": NOW - 9000, "exp": NOW + 1}, UNTRUSTED),
        ("no iat, 1 h left", "hour", {"exp": NOW + 3600}, ACCEPTED),
        ("no iat, 1 h + 1 left", "hour", {"exp": NOW + 3601}, UNTRUSTED),
        ("milliseconds", "hour", {"exp": NOW * 1000}, UNTRUSTED),
        ("milliseconds with iat", "hour", {"exp": NOW * 1000, "iat": NOW}, UNTRUSTED),
        ("skew, no iat, 1 h + 30", "hour-skew", {"exp": NOW + 3630}, ACCEPTED),
        ("skew, no iat, 1 h + 31", "hour-skew", {"exp": NOW + 3631}, UNTRUSTED),
        ("skew, iat, 1 h + 1", "hour-skew", {"iat": NOW, "exp": NOW + 3601}, UNTRUSTED),
        ("no exp", "hour-no-exp", {"iat": NOW, "exp": ...}, UNTRUSTED),
        ("iat after exp", "hour-skew", {"iat": NOW + 20, "exp": NOW + 10}, ACCEPTED),
    ):
        at(f"1 h: {name}", want, setup, **more)
    case("time", "no exp where none is asked", "open", opened(claims("open", exp=...)), ACCEPTED)
    case("time", "expired where no exp is asked", "open", opened(claims("open", exp=NOW)),
         EXPIRED)


def meant_for_us():
    def iss(name, value, want=UNTRUSTED):
        case("iss", name, "hs", token(HS, claims(iss=value)), want)

    def aud(name, value, want=UNTRUSTED, to="hs"):
        make = {"hs": OF["HS256"].token, "two-audiences": lambda aud: rules(to, aud=aud),
                "open": lambda aud: opened(claims(aud=aud))}[to]
        case("aud", name, to, make(aud=value), want)

    for value in ("https://i", "https://I/", "HTTPS://i/", "http://i/", "https://i//", "i",
                  "https://i/x", "xhttps://i/", " https://i/", "https://i/ ", "", "https://i/\0",
                  "https://i/?", "https://\uff49/", "https://i/,https://i/"):
        iss(repr(value), value)
    iss("missing", ...)
    case("iss", "null", "hs", token(HS, claims(iss=None)), MALFORMED)
    case("iss", "array", "hs", token(HS, claims(iss=["https://i/"])), MALFORMED)
    body = json.dumps(claims(), separators=(",", ":")).replace("https://i/", "https:\\/\\/i\\/")
    case("iss", "escaped slashes", "hs", token(HS, body), ACCEPTED)
    case("iss", "any issuer where none is stated", "open", opened(claims(iss="x")), ACCEPTED)
    case("iss", "no issuer where none is stated", "open", opened(claims(iss=...)), ACCEPTED)
    case("iss", "wrong issuer, expired", "hs", token(HS, claims(iss="x", exp=1)), UNTRUSTED)

    for value in ("Me", "ME", "m", "mee", "me ", " me", "me you", "me,you", "", "\uff4d\uff45",
                  "me\0", "https://me", "http://me", "https://me/", "me/", [], ["you"], ["m", "e"], ["ME"], [""], ["me,you"]):
        aud(repr(value), value)
    for value in (["me"], ["you", "me"], ["me", "you"], ["me", "me"]):
        aud(repr(value), value, ACCEPTED)
    aud("missing", ...)
    for value, want in (("you", ACCEPTED), ("me", ACCEPTED), (["x", "you"], ACCEPTED),
                        ("youme", UNTRUSTED), ("x", UNTRUSTED)):
        aud(f"one of two: {value!r}", value, want, "two-audiences")
    aud("any audience where none is stated", "x", ACCEPTED, "open")
    aud("no audience where none is stated", ..., ACCEPTED, "open")

    def sub(name, to, more, want, **extra):
        made = token(HS, claims(**more)) if to == "hs" else rules(to, **more)
        case("sub", name, to, made, want, **extra)

    sub("none", "hs", {"sub": ...}, ACCEPTED, subject=None)
    sub("empty", "hs", {"sub": ""}, ACCEPTED, subject=None)
    sub("none where one is asked", "subject", {"sub": ...}, UNTRUSTED)
    sub("empty where one is asked", "subject", {"sub": ""}, UNTRUSTED)
    sub("some where one is asked", "subject", {}, ACCEPTED, subject="ada")
    sub("another claim", "email", {"email": "a@b"}, ACCEPTED, subject="a@b")
    sub("another claim, missing", "email", {}, UNTRUSTED)
    sub("another claim, a number", "email", {"email": 7}, MALFORMED)
    sub("another claim, null", "email", {"email": None}, MALFORMED)


def forged():
    """No verdict on the claims of a token that is not genuine."""
    for kind in KINDS:
        wrong = by(kind.alg, kind.other)
        for name, more in (("expired", {"exp": 1}), ("too early", {"nbf": 2**33}),
                           ("aud", {"aud": "x"}), ("no exp", {"exp": ...}), ("plain", {})):
            case("forged", f"{kind.alg}: {name}", kind.name, kind.token(sign=wrong, **more),
                 UNTRUSTED)
        head, body, sig = kind.token().split(".")
        other = b64(raw(claims(kind.name, sub="root")))
        case("forged", f"{kind.alg}: claims exchanged", kind.name, f"{head}.{other}.{sig}",
             UNTRUSTED)
        other = b64(raw(kind.head | {"x": 1}))
        case("forged", f"{kind.alg}: header exchanged", kind.name, f"{other}.{body}.{sig}",
             UNTRUSTED)
        for name, bent in (("cut", lambda s: s[:-1]), ("without its first byte", lambda s: s[1:]),
                           ("one byte", lambda s: s[:1]), ("a zero before", lambda s: b"\0" + s),
                           ("a zero after", lambda s: s + b"\0"), ("twice", lambda s: s + s),
                           ("half", lambda s: s[:len(s) // 2])):
            case("forged", f"{kind.alg}: signature: {name}", kind.name,
                 f"{head}.{body}.{b64(bent(unb64(sig)))}", UNTRUSTED, form=kind.alg in PUBLIC)


# DigestInfo before the digest (RFC 8017 section 9.2), and the same without its NULL.
INFO = {
    "256": ("3031300d060960864801650304020105000420", "302f300b06096086480165030402010420"),
    "384": ("3041300d060960864801650304020205000430", "303f300b06096086480165030402020430"),
    "512": ("3051300d060960864801650304020305000440", "304f300b06096086480165030402030440"),
}


def rsa_signatures():
    public, private = RSA.public_key().public_numbers(), RSA.private_numbers()
    for kind in (OF[name] for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")):
        signed = f"{b64(raw(kind.head))}.{b64(raw(claims(kind.name)))}"
        sig = kind.sign(signed.encode())
        value = int.from_bytes(sig, "big")

        def bad(name, data, kind=kind, signed=signed):
            # What is wrong by its form alone is not even shown to the host.
            form = len(data) != 256 or int.from_bytes(data, "big") >= public.n
            case("rsa", f"{kind.alg}: {name}", kind.name, f"{signed}.{b64(data)}", UNTRUSTED,
                 form=form)

        bad("one", (1).to_bytes(256, "big"))
        bad("n", public.n.to_bytes(256, "big"))
        bad("n - 1", (public.n - 1).to_bytes(256, "big"))
        bad("n - s", (public.n - value).to_bytes(256, "big"))
        if value + public.n < 1 << 2048:
            bad("s + n", (value + public.n).to_bytes(256, "big"))
        bad("s + n in 257 bytes", (value + public.n).to_bytes(257, "big"))
        bad("all ones", b"\xff" * 256)

        def padded(name, block, want=UNTRUSTED, kind=kind, signed=signed):
            made = pow(int.from_bytes(block, "big"), private.d, public.n).to_bytes(256, "big")
            case("rsa", f"{kind.alg}: {name}", kind.name, f"{signed}.{b64(made)}", want)

        if kind.alg.startswith("RS"):
            pkcs1(kind.alg[2:], signed, padded)
        else:
            pss(kind.alg[2:], signed, kind)


def pkcs1(bits, signed, padded):
    digest = HMACS[bits](signed.encode()).digest()
    info, no_null = (bytes.fromhex(text) for text in INFO[bits])
    size = len(digest)

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
           b"\0\1" + b"\xff" * 8 + b"\0" * (256 - 10 - len(info) - size) + info + digest)
    other = "384" if bits == "256" else "256"
    wide = HMACS[other]().digest_size
    padded(f"the name of SHA-{other}",
           block(bytes.fromhex(INFO[other][0]) + (digest + bytes(wide))[:wide]))
    long_form = b"\x30\x81" + info[1:]
    padded("long form of a length", block(long_form + digest))
    padded("digest of nothing", block(info + HMACS[bits](b"").digest()))
    padded("digest cut", block(info + digest[:-1]))
    padded("nothing but padding", block(b""))


def pss(bits, signed, kind):
    hash_, text = HASHES[bits], signed.encode()

    def made(name, sig, want=UNTRUSTED):
        case("rsa", f"{kind.alg}: {name}", kind.name, f"{signed}.{b64(sig)}", want)

    made("the right padding", sign_ps(text, RSA, hash_), ACCEPTED)
    made("the right padding again", sign_ps(text, RSA, hash_), ACCEPTED)
    # RFC 7518 section 3.5: the salt is as long as the hash.
    for salt in (0, 20, hash_.digest_size - 1, hash_.digest_size + 1, 222 - hash_.digest_size):
        made(f"{salt} bytes of salt", sign_ps(text, RSA, hash_, salt))
    for mask in (hashes.SHA1(), *(other for name, other in HASHES.items() if name != bits)):
        made(f"{mask.name} for the mask", sign_ps(text, RSA, hash_, mask=mask))
    made("SHA-1", sign_ps(text, RSA, hashes.SHA1(), hash_.digest_size, hash_))
    made("PKCS #1 v1.5", sign_rs(text, RSA, hash_))


def ec_signatures():
    for kind, order, size in ((OF["ES256"], ORDER, 32), (OF["ES384"], ORDER_384, 48)):
        signed = f"{b64(raw(kind.head))}.{b64(raw(claims(kind.name)))}"
        hash_ = HASHES[kind.alg[2:]]
        der_form = kind.key.sign(signed.encode(), ec.ECDSA(hash_))
        r, s = decode_dss_signature(der_form)

        def pair(r, s, size=size):
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

        def es(name, data, want=UNTRUSTED, kind=kind, order=order, size=size, signed=signed):
            numbers = (int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big"))
            form = len(data) != 2 * size or not all(0 < number < order for number in numbers)
            case("ecdsa", f"{kind.alg}: {name}", kind.name, f"{signed}.{b64(data)}", want,
                 form=form)

        es("as it is", pair(r, s), ACCEPTED)
        es("the twin", pair(r, order - s), ACCEPTED)
        top = 2**(8 * size) - 1
        for name, values in (
            ("0, 0", (0, 0)), ("0, s", (0, s)), ("r, 0", (r, 0)), ("n, s", (order, s)),
            ("r, n", (r, order)), ("n, n", (order, order)), ("1, 1", (1, 1)),
            ("n-1, n-1", (order - 1, order - 1)), ("1, 0", (1, 0)), ("0, 1", (0, 1)),
            ("s, r", (s, r)), ("n-r, s", (order - r, s)), ("r, r", (r, r)),
            ("all ones", (top, top)), ("n+1, s", (order + 1, s)), ("r, n+1", (r, order + 1)),
            ("n, 1", (order, 1)), ("1, n", (1, order)), ("r, s+1", (r, s % (order - 1) + 1)),
        ):
            es(name, pair(*values))
        if r + order <= top:
            es("r + n, s", pair(r + order, s))
        if s + order <= top:
            es("r, s + n", pair(r, s + order))
        es("DER", der_form)
        es("one byte less", pair(r, s)[:-1])
        es("one byte more", pair(r, s) + b"\0")
        es("a byte more in each", pair(r, s, size + 1))
        es("the other curve's length", pair(r % 2**256, s % 2**256, 80 - size))
        es("r alone", pair(r, s)[:size])
        es("by another hash", es_raw(kind.key, signed.encode(), hashes.SHA512(), size))
        # Small r and s give short DER integers; nobody can sign so, but they must be written right.
        for small in (1, 127, 128, 255, 256, 2**247, 2**248 - 1):
            made = f"{signed}.{b64(pair(small, s))}"
            case("ecdsa", f"{kind.alg}: small r {small:x}", kind.name, made, UNTRUSTED,
                 host=host_form(made))


# Points of Ed25519 whose order divides 8, in every encoding that decoders are known to take.
SMALL_ORDER = [
    "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32, "00" * 31 + "80",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "01" + "00" * 30 + "80", "ec" + "ff" * 31, "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
    "ed" + "ff" * 31, "ee" + "ff" * 31,
]


def ed_signatures():
    kind = OF["EdDSA"]
    signed = f"{b64(raw(kind.head))}.{b64(raw(claims(kind.name)))}"
    sig = kind.sign(signed.encode())
    r, s = sig[:32], int.from_bytes(sig[32:], "little")

    def ed(name, data):
        case("eddsa", name, "eddsa", f"{signed}.{b64(data)}", UNTRUSTED, form=len(data) != 64)

    # S has 253 bits: S + 15 L still fits into 256.
    for times in (1, 2, 7, 14):
        ed(f"S + {times} L", r + (s + times * ORDER_ED).to_bytes(32, "little"))
    ed("S = 0", r + bytes(32))
    ed("S = L", r + ORDER_ED.to_bytes(32, "little"))
    ed("L - S", r + (ORDER_ED - s).to_bytes(32, "little"))
    ed("R = 0", bytes(32) + sig[32:])
    ed("all ones", b"\xff" * 64)
    ed("S in big-endian", r + sig[32:][::-1])
    ed("S, R", sig[32:] + r)
    ed("the sign of R", r[:31] + bytes([r[31] ^ 0x80]) + sig[32:])
    # The holder of the key alone could make these, but one message would have many signatures.
    secret_half = hashlib.sha512(ED.private_bytes_raw()).digest()[:32]
    scalar = int.from_bytes(secret_half, "little") & ~7 & (2**254 - 1) | 2**254
    for point in SMALL_ORDER:
        first = bytes.fromhex(point)
        hashed = hashlib.sha512(first + ed_bytes(ED) + signed.encode()).digest()
        second = int.from_bytes(hashed, "little") * scalar % ORDER_ED
        ed(f"R of small order {point}", first + second.to_bytes(32, "little"))


def key_mistakes():
    """Sets that must be refused when the policy is read, with the path of the mistake."""
    at = "authentication.jwt.providers[0].keys.jwks_inline.keys"
    small = rsa.generate_private_key(65537, 1024)
    odd = rsa.generate_private_key(3, 2048)
    big = {"kty": "RSA", "kid": "big", "n": number((1 << 4096) + 1), "e": "AQAB"}
    # Every power of 65537 looks like a key of the generator of CVE-2017-15361.
    roca = {"kty": "RSA", "kid": "roca", "n": number(65537**150), "e": "AQAB"}
    private = {"d": number(RSA.private_numbers().d)}
    n = R1["n"]
    x, y = (unb64(E1[part]) for part in "xy")
    d = unb64(D1["x"])
    oct_key = {"kty": "oct", "kid": "o", "k": b64(SECRET)}
    two = ["RS256", "ES256"]
    found = [
        ("1024 bits", two, [jwk_rsa(small, "a")], [f"{at}[0].n"]),
        ("above 4096 bits", two, [big], [f"{at}[0].n"]),
        ("CVE-2017-15361", two, [roca], [f"{at}[0].n"]),
        ("exponent 3", two, [jwk_rsa(odd, "a")], [f"{at}[0].e"]),
        ("exponent 1", two, [R1 | {"e": "AQ"}], [f"{at}[0].e"]),
        ("exponent with a zero", two, [R1 | {"e": "AAEAAQ"}], [f"{at}[0].e"]),
        ("even modulus", two, [R1 | {"n": number(RSA.public_key().public_numbers().n - 1)}],
         [f"{at}[0].n"]),
        ("a zero before n", two, [R1 | {"n": b64(b"\0" + unb64(n))}], [f"{at}[0].n"]),
        ("padded n", two, [R1 | {"n": n + "=="}], [f"{at}[0].n"]),
        ("empty n", two, [R1 | {"n": ""}], [f"{at}[0].n"]),
        ("n is a number", two, [R1 | {"n": 7}], [f"{at}[0].n"]),
        ("no n, no e", two, [without(R1, "n", "e")], [f"{at}[0].n", f"{at}[0].e"]),
        ("private", two, [R1 | private], [f"{at}[0].d"]),
        ("private EC", two, [E1 | {"d": "AAAA"}], [f"{at}[0].d"]),
        ("private, for encryption", two, [R1, jwk_rsa(RSA, "x", use="enc", **private)],
         [f"{at}[1].d"]),
        ("secret", two, [oct_key], [f"{at}[0].kty"]),
        ("secret without k", two, [without(oct_key, "k")], [f"{at}[0].kty"]),
        ("secret among public keys", two, [R1, oct_key], [f"{at}[1].kty"]),
        ("public key with k", two, [R1 | {"k": "AAAA"}], [f"{at}[0].k"]),
        ("off the curve", two, [E1 | {"x": b64(bytes([x[0] ^ 1]) + x[1:])}], [f"{at}[0].x"]),
        ("the point at infinity", two, [E1 | {"x": b64(bytes(32)), "y": b64(bytes(32))}],
         [f"{at}[0].x"]),
        ("31 bytes of x", two, [E1 | {"x": b64(x[1:])}], [f"{at}[0].x"]),
        ("33 bytes of x", two, [E1 | {"x": b64(b"\0" + x)}], [f"{at}[0].x"]),
        ("31 and 33 bytes, which together would do", two,
         [E1 | {"x": b64(x[:31]), "y": b64(x[31:] + y)}], [f"{at}[0].x", f"{at}[0].y"]),
        ("no y", two, [without(E1, "y")], [f"{at}[0].y"]),
        ("no crv", two, [without(E1, "crv")], [f"{at}[0].crv"]),
        ("no kty", two, [without(R1, "kty")], [f"{at}[0].kty"]),
        ("kty is a number", two, [R1 | {"kty": 1}], [f"{at}[0].kty"]),
        ("kid is a number", two, [R1 | {"kid": 1}], [f"{at}[0].kid"]),
        ("kid is null", two, [R1 | {"kid": None}], [f"{at}[0].kid"]),
        ("use is a list", two, [R1 | {"use": ["sig"]}], [f"{at}[0].use"]),
        ("use is null", two, [R1 | {"use": None}], [f"{at}[0].use"]),
        ("alg is null", two, [R1 | {"alg": None}], [f"{at}[0].alg"]),
        ("alg is a list", two, [R1 | {"alg": ["RS256"]}], [f"{at}[0].alg"]),
        ("key_ops is a string", two, [R1 | {"key_ops": "verify"}], [f"{at}[0].key_ops"]),
        ("kid twice", two, [R1, jwk_rsa(RSA_2, OF["RS256"].kid)], [f"{at}[1].kid"]),
        ("kid twice, two kinds", two, [R1, jwk_ec(EC, OF["RS256"].kid)], [f"{at}[1].kid"]),
        ("two mistakes", two, [jwk_rsa(small, "a"), R1, jwk_rsa(odd, "b")],
         [f"{at}[0].n", f"{at}[2].e"]),
        ("not an object", two, ["key"], [f"{at}[0]"]),
        ("empty", two, [], [at]),
        ("only for encryption", two, [R1 | {"use": "enc"}], [at]),
        ("only for signing", two, [R1 | {"key_ops": ["sign"]}], [at]),
        ("only for PS256", two, [R1 | {"alg": "PS256"}], [at]),
        ("only P-384", two, [E3], [at]),
        ("P-384 that calls itself P-256", two, [E3 | {"crv": "P-256", "alg": "ES256"}],
         [f"{at}[0].x", f"{at}[0].y"]),
        ("P-256 that calls itself P-384", ["ES384"], [E1 | {"crv": "P-384", "alg": "ES384"}],
         [f"{at}[0].x", f"{at}[0].y"]),
        ("off P-384", ["ES384"], [E3 | {"y": E3["x"]}], [f"{at}[0].x"]),
        ("ES384 on P-256", ["ES256", "ES384"], [E1 | {"alg": "ES384"}], [at]),
        ("ES256 on P-384", ["ES256", "ES384"], [E3 | {"alg": "ES256"}], [at]),
        ("alg of another kind", two, [E1 | {"alg": "RS256"}], [at]),
        ("alg of HMAC", two, [R1 | {"alg": "HS256"}], [at]),
        ("alg none", two, [R1 | {"alg": "none"}], [at]),
        ("only unknown", two, [{"kty": "OKP", "crv": "X25519", "x": "AAAA"}], [at]),
        ("OKP without crv", ["EdDSA"], [without(D1, "crv")], [f"{at}[0].crv"]),
        ("OKP without x", ["EdDSA"], [without(D1, "x")], [f"{at}[0].x"]),
        ("Ed448", ["EdDSA"], [D1 | {"crv": "Ed448"}], [at]),
        ("31 bytes of Ed25519", ["EdDSA"], [D1 | {"x": b64(d[1:])}], [f"{at}[0].x"]),
        ("33 bytes of Ed25519", ["EdDSA"], [D1 | {"x": b64(d + b"\0")}], [f"{at}[0].x"]),
        ("private Ed25519", ["EdDSA"], [D1 | {"d": b64(d)}], [f"{at}[0].d"]),
        ("65 keys", two, [jwk_rsa(RSA, f"k{i}") for i in range(65)], [at]),
    ]
    found += [(f"small order {point}", ["EdDSA"], [D1 | {"x": b64(bytes.fromhex(point))}],
               [f"{at}[0].x"]) for point in SMALL_ORDER]
    names = ("name", "algorithms", "keys", "paths")
    return [dict(zip(names, entry)) for entry in found]


def sets():
    """Sets as an issuer might answer, and what is left of them."""
    small = jwk_rsa(rsa.generate_private_key(65537, 1024), "small")
    oct_key = {"kty": "oct", "kid": "o", "k": b64(SECRET)}
    unknown = {"kty": "AKP", "kid": "u", "alg": "ML-DSA-44", "pub": "AAAA"}
    made = []

    def taken(name, keys, used, for_others=0, left_out=(), algorithms=("RS256", "ES256", "EdDSA")):
        made.append({"name": name, "algorithms": list(algorithms),
                     "text": json.dumps({"keys": keys}), "used": used, "for_others": for_others,
                     "left_out": list(left_out)})

    def refused(name, text, error, algorithms=("RS256", "ES256", "EdDSA")):
        entry = {"name": name, "algorithms": list(algorithms), "error": error}
        made.append(entry | ({"hex": text.hex()} if isinstance(text, bytes) else {"text": text}))

    def none(name, *keys):
        refused(name, json.dumps({"keys": list(keys)}), "NoneUsable")

    taken("one", [R1], 1)
    taken("one of each", [R1, E1, D1], 3)
    taken("a kind that nobody knows", [unknown, R1], 1, 1)
    taken("a bad one in the middle", [R1, small, E1], 2, 0, ["keys[1].n"])
    taken("not an object in the middle", [R1, 7, None, "x", [], E1], 2, 0,
          ["keys[1]", "keys[2]", "keys[3]", "keys[4]"])
    taken("for encryption", [R1, jwk(RSA_2, "e", use="enc"), jwk(RSA_2, "w", key_ops=["wrapKey"])],
          1, 2)
    taken("not listed", [R1, E3, jwk(RSA_2, "p", alg="PS256")], 1, 2)
    taken("private ones are left out", [R1, jwk(RSA_2, "p", d="AAAA"), jwk(EC, "q", d="AAAA")], 1,
          0, ["keys[1].d", "keys[2].d"])
    taken("secrets are left out", [R1, oct_key, without(oct_key, "k")], 1, 0,
          ["keys[1].kty", "keys[2].kty"])
    taken("a kid twice: both are left out", [jwk(RSA, "k"), jwk(RSA_2, "k"), E1], 1, 0,
          ["keys[0].kid", "keys[1].kid"])
    taken("a kid three times", [jwk(RSA, "k"), jwk(RSA_2, "k"), E1, jwk(RSA, "k")], 1, 0,
          ["keys[0].kid", "keys[1].kid", "keys[3].kid"])
    taken("a kid twice, two kinds", [jwk(RSA, "k"), jwk(EC, "k")], 2)
    taken("a kid twice, one of them for encryption", [jwk(RSA, "k"), jwk(RSA_2, "k", use="enc")],
          1, 1)
    taken("a kid twice, one of them wrong", [jwk(RSA, "k"), small | {"kid": "k"}], 1, 0,
          ["keys[1].n"])
    taken("a kid twice, apart by alg", [jwk(RSA, "k", alg="RS256"), jwk(RSA_2, "k", alg="PS256")],
          2, algorithms=["RS256", "PS256"])
    taken("a kid twice, one for all", [jwk(RSA, "k"), jwk(RSA_2, "k", alg="PS256"), E1], 1, 0,
          ["keys[0].kid", "keys[1].kid"], algorithms=["RS256", "PS256", "ES256"])
    taken("no kid twice", [without(R1, "kid"), without(jwk(RSA_2, "x"), "kid")], 2)
    taken("one for several algorithms", [jwk(RSA, "k")], 1, algorithms=PUBLIC)
    taken("other members", [R1 | {"x5c": ["AAAA"], "x5t": "AAAA", "exp": 1, "foo": {"bar": []}}], 1)
    taken("64 keys", [jwk(RSA, f"k{i}") for i in range(64)], 64)
    for member, value in (("kty", None), ("kty", 1), ("kid", 1), ("kid", None), ("alg", ["RS256"]),
                          ("use", True), ("key_ops", "verify"), ("key_ops", [1]), ("n", 7),
                          ("n", ""), ("n", "A+B/"), ("n", R1["n"] + "="), ("e", None), ("e", "Aw"),
                          ("crv", 1)):
        taken(f"{member} is {json.dumps(value)[:20]}", [R1 | {member: value}, E1], 1, 0,
              [f"keys[0].{member}"])
    for member in ("kty", "n", "e"):
        taken(f"no {member}", [without(R1, member), E1], 1, 0, [f"keys[0].{member}"])
    for member in ("crv", "x", "y"):
        taken(f"no {member}", [without(E1, member), R1], 1, 0, [f"keys[0].{member}"])
    for member in ("crv", "x"):
        taken(f"EdDSA, no {member}", [without(D1, member), R1], 1, 0, [f"keys[0].{member}"])
    taken("an unknown curve", [E1 | {"crv": "P-257"}, R1], 1, 1)
    taken("off the curve", [E1 | {"y": E1["x"]}, R1], 1, 0, ["keys[0].x"])
    taken("alg of another curve", [E1 | {"alg": "ES384"}, E3 | {"alg": "ES256"}, R1], 1, 2,
          algorithms=["RS256", "ES256", "ES384"])
    refused("nothing", "", "NotAnObject")
    for text in ("null", "[]", "1", '"keys"', "<html>", "{", '{"keys":[]', '{"keys":[]}x',
                 '\ufeff{"keys":[]}', "{'keys':[]}", '{"keys":[],}'):
        refused(repr(text), text, "NotAnObject")
    refused("keys twice", json.dumps({"keys": [R1]})[:-1] + ',"keys":[]}', "NotAnObject")
    refused("a member twice", '{"keys":[{"kty":"RSA","kty":"EC"}]}', "NotAnObject")
    refused("not UTF-8", b'{"keys":["\xff"]}', "NotAnObject")
    refused("too deep", '{"keys":[' + "[" * 40 + "]" * 40 + "]}", "NotAnObject")
    for text in ("{}", '{"keys":{}}', '{"keys":null}', '{"keys":"x"}', json.dumps(R1)):
        refused(f"no list: {text[:20]}", text, "NoList")
    none("empty")
    none("only wrong", small)
    none("only for encryption", jwk(RSA, "e", use="enc"))
    none("only secrets", oct_key)
    none("only unknown", unknown)
    none("only ambiguous", jwk(RSA, "k"), jwk(RSA_2, "k"))
    refused("65 keys", json.dumps({"keys": [jwk(RSA, f"k{i}") for i in range(65)]}), "TooMany")
    return made


for group in (rfc, good, same_for_all, alg, confusion, selection, header, compact, payload, times,
              meant_for_us, forged, rsa_signatures, ec_signatures, ed_signatures):
    group()

names = [(entry["group"], entry["name"]) for entry in CASES]
assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1][:9]
spki = [{"jwk": jwk(key, "x"), "der": der(key).hex()} for key in (RSA, RSA_2, EC, P384)]
head = {"about": "Written by corpus.py, which says what is in here; do not edit.", "now": NOW,
        "setups": SETUPS, "spki": spki, "key_mistakes": key_mistakes(), "sets": sets()}
out = sys.stdout
out.write(json.dumps(head)[:-1] + ',\n"cases": [\n')
out.write(",\n".join(json.dumps(entry) for entry in CASES))
out.write("\n]}\n")
print(len(CASES), "cases", file=sys.stderr)
