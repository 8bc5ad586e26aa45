#!/bin/sh
# An encrypted Dask connection: . ./tls.sh on every host (scheduler, workers, and where platelayer is started).
# Makes a certificate that is its own authority, once; copy tls.pem and tls.key to the other hosts by a safe way.
# Who holds the key may run code on the workers: keep it as you keep an SSH key.
TLS=${TLS:-$HOME/.config/platelayer-tls}
mkdir -p "$TLS" && chmod 700 "$TLS"
[ -f "$TLS/tls.key" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=platelayer" -keyout "$TLS/tls.key" -out "$TLS/tls.pem"
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$TLS/tls.pem"
for role in CLIENT SCHEDULER WORKER; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$TLS/tls.pem" "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$TLS/tls.key"
done
# then: dask scheduler --protocol tls --port 8786; dask worker tls://head:8786; platelayer ... --executor tls://head:8786
