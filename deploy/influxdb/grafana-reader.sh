#!/bin/bash
# Run once by the image, when the volume is empty: the user with whom Grafana reads, and the database name that InfluxQL
# asks for.
set -euo pipefail
influx v1 dbrp create --org "$DOCKER_INFLUXDB_INIT_ORG" --bucket-id "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
    --db "$DOCKER_INFLUXDB_INIT_BUCKET" --rp autogen --default
influx v1 auth create --org "$DOCKER_INFLUXDB_INIT_ORG" --read-bucket "$DOCKER_INFLUXDB_INIT_BUCKET_ID" \
    --username grafana --password "$GRAFANA_INFLUX_PASSWORD"
