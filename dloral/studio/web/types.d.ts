// What the server tells the page before anything else (page.py writes it).
export interface Configuration {
  model: string;
  hasMenu: boolean;
  isLocal: boolean;
  maxUpload: number;
  keepSeconds: number;
  mostVisits: number;
  examples: string[];
  pictures: string[];
  scale: [number, number];
  most: number;
}
