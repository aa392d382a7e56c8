// The last positions of each track, [x, y, height, z, time] in um and s, for `keep_s` seconds and at most `most` of them.
export class Trails {
  constructor(keep_s = 20, most = 60) { this.keep_s = keep_s; this.most = most; this.tracks = new Map(); this.now_s = 0; }

  add(rows, count, header) {
    if (header.time_s < this.now_s) this.tracks.clear();
    this.now_s = header.time_s;
    const focus = header.focus_um ?? 0;
    for (let i = 0; i < count; i++) {
      const name = rows[i], z = rows[3 * count + i];
      let trail = this.tracks.get(name);
      if (!trail) this.tracks.set(name, trail = []);
      trail.push([rows[count + i], rows[2 * count + i], focus + z, z, header.time_s]);
      if (trail.length > this.most) trail.shift();
    }
    for (const [name, trail] of this.tracks) if (trail[trail.length - 1][4] < this.now_s - this.keep_s) this.tracks.delete(name);
  }
}
