/** How many events are allowed in any stretch of so many seconds. */
export interface Rate {
  readonly count: number;
  readonly windowSecs: number;
}
