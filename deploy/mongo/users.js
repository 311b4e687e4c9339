// Run once by the image, as root, when the volume is empty.
db.getSiblingDB("admin").createUser({
  user: "eventsink",
  pwd: process.env.EVENTSINK_PASSWORD,
  roles: [{ role: "readWrite", db: "eventsink" }],
});
