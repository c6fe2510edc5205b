/**
 * The lab's certificate authority: P-256, one leaf for each server name, made when first asked for.
 * Clients in the lab trust it; nothing outside ever sees it.
 */
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 86_400_000;

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

async function newKeys(): Promise<CryptoKeyPair> {
  return await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

async function keyPem(key: CryptoKey): Promise<string> {
  return PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

/** Valid from yesterday (clocks) for a month (no lab lives longer). */
function validity(): { notBefore: Date; notAfter: Date } {
  const now = Date.now();
  return { notBefore: new Date(now - DAY_MS), notAfter: new Date(now + 30 * DAY_MS) };
}

/** Signs leaves for the lab's servers. */
export class CertificateAuthority {
  readonly #leaves = new Map<string, Promise<KeyPair>>();

  private constructor(readonly root: X509Certificate, readonly keys: CryptoKeyPair) {}

  /** A new root with a key of its own. */
  static async create(): Promise<CertificateAuthority> {
    const keys = await newKeys();
    const root = await X509CertificateGenerator.createSelfSigned({
      name: "CN=Lab root",
      keys,
      signingAlgorithm: ALGORITHM,
      ...validity(),
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    });
    return new CertificateAuthority(root, keys);
  }

  /** The root's certificate, for the clients' trust store (PEM). */
  get rootPem(): string {
    return this.root.toString("pem");
  }

  /** The certificate of `serverName`, a DNS name or an IP address. */
  leaf(serverName: string): Promise<KeyPair> {
    const made = this.#leaves.get(serverName) ?? this.#sign(serverName);
    this.#leaves.set(serverName, made);
    return made;
  }

  async #sign(serverName: string): Promise<KeyPair> {
    const keys = await newKeys();
    const type = /^[0-9.]+$/.test(serverName) ? "ip" : "dns";
    const leaf = await X509CertificateGenerator.create({
      subject: `CN=${serverName}`,
      issuer: this.root.subject,
      publicKey: keys.publicKey,
      signingKey: this.keys.privateKey,
      signingAlgorithm: ALGORITHM,
      ...validity(),
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
        new SubjectAlternativeNameExtension([{ type, value: serverName }]),
      ],
    });
    return { cert: leaf.toString("pem"), key: await keyPem(keys.privateKey) };
  }
}
