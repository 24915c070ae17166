// Package appraisal judges Claims on the five levels: one file of pure rules per level.
//
// A rule is one function over the same input; it returns findings with a stable name, what was expected and observed, the likely
// cause and what to do. The same Claims, policy, references and clock give the same verdict, so every verdict can be replayed.
// What a level cannot know is a finding too, of status unknown, and costs trust unless the policy allows it.
package appraisal
